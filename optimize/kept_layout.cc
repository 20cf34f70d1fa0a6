#include "optimize/kept_layout.h"

#include "copy/snapshot_copy.h"
#include "qcow2/format/geometry.h"

namespace vc::optimize {

namespace {

// Returns whether an option was chosen that version 2 of the format does not have.
bool needs_version_3(const copy::CopyOptions& how, bool encrypted) {
  const copy::ImageOptions& wanted = how.image;
  return how.compression.type == qcow2::CompressionType::kZstd ||
         wanted.compression_type == qcow2::CompressionType::kZstd ||
         wanted.refcount_order.value_or(4) != 4 || wanted.extended_l2.value_or(false) ||
         wanted.lazy_refcounts.value_or(false) || !wanted.backing_file.empty() ||
         !wanted.data_file.empty() ||
         (encrypted && wanted.preallocation != copy::Preallocation::kOff);
}

}  // namespace

void keep_layout(const qcow2::Header& header, size_t snapshots, copy::CopyOptions& how) {
  auto& wanted = how.image;
  if (header.version == 2 && !wanted.version &&
      !needs_version_3(how, header.crypt_method != qcow2::CryptMethod::kNone))
    wanted.version = 2;
  if (!wanted.cluster_bits) wanted.cluster_bits = header.cluster_bits;
  const bool modern = wanted.version.value_or(3) >= 3;
  if (modern && how.keep_compression && !wanted.compression_type)
    wanted.compression_type = header.compression_type;
  if (modern && !wanted.refcount_order)
    wanted.refcount_order = copy::refcount_order_for(snapshots, header.refcount_order);
  if (modern && !wanted.lazy_refcounts)
    wanted.lazy_refcounts = (header.compatible_features & qcow2::compatible::kLazyRefcounts) != 0;
  if (modern && !wanted.extended_l2)
    wanted.extended_l2 =
        header.extended_l2() && *wanted.cluster_bits >= qcow2::Geometry::kMinClusterBitsExtendedL2;
}

}  // namespace vc::optimize
