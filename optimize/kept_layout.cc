#include "optimize/kept_layout.h"

#include "copy/snapshot_copy.h"
#include "qcow2/format/geometry.h"

namespace vc::optimize {

void keep_layout(const qcow2::Header& header, size_t snapshots, copy::CopyOptions& how) {
  auto& wanted = how.image;
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
