#include "copy/sink/image_options.h"

#include <algorithm>
#include <bit>

namespace vc::copy {

namespace {

constexpr unsigned kDefaultClusterBits = 16;
constexpr unsigned kDefaultRefcountOrder = 4;
// Upper bound for the reach of an L2 table, so that the size of the largest disk does not overflow;
// bytes.
constexpr uint64_t kLargestReach = uint64_t{1} << 39;

}  // namespace

const char* to_string(Preallocation preallocation) {
  switch (preallocation) {
    case Preallocation::kMetadata:
      return "metadata";
    case Preallocation::kFalloc:
      return "falloc";
    case Preallocation::kFull:
      return "full";
    case Preallocation::kOff:
      break;
  }
  return "off";
}

Result<qcow2::BuildOptions> build_options(const ImageOptions& options, const Source& source,
                                          const qcow2::Image* image,
                                          std::optional<qcow2::CompressionType> compression) {
  qcow2::BuildOptions build;
  build.size = source.size();
  build.version = options.version.value_or(3);
  const bool modern = build.version >= 3;
  build.cluster_bits = kDefaultClusterBits;
  if (const auto size = source.cluster_size())
    build.cluster_bits = static_cast<unsigned>(std::countr_zero(*size));
  if (options.cluster_bits) build.cluster_bits = *options.cluster_bits;
  build.refcount_order = kDefaultRefcountOrder;
  if (image && modern) {
    const qcow2::Header& header = image->header();
    build.refcount_order = header.refcount_order;
    build.extended_l2 =
        header.extended_l2() && build.cluster_bits >= qcow2::Geometry::kMinClusterBitsExtendedL2;
    build.lazy_refcounts = (header.compatible_features & qcow2::compatible::kLazyRefcounts) != 0;
  }
  build.refcount_order = options.refcount_order.value_or(build.refcount_order);
  build.extended_l2 = options.extended_l2.value_or(build.extended_l2);
  build.lazy_refcounts = options.lazy_refcounts.value_or(build.lazy_refcounts);
  build.compression_type =
      compression.value_or(options.compression_type.value_or(qcow2::CompressionType::kDeflate));
  build.backing_file = options.backing_file;
  build.backing_format = options.backing_format;
  build.data_file = options.data_file;
  build.data_file_raw = options.data_file_raw;

  if (compression && !build.data_file.empty())
    return fail(Error::invalid(
        "compression and data_file: clusters in an external data file are never compressed"));
  if (!build.backing_file.empty() && !modern)
    return fail(
        Error::invalid("compat=0.10 with a backing file: version 2 has no zero clusters to hide "
                       "data of the backing file: use compat=1.1"));
  if (!build.backing_file.empty() && options.preallocation != Preallocation::kOff)
    return fail(
        Error::invalid("preallocation with a backing file: preallocated clusters would hide the "
                       "data of the backing file"));
  // Assumes the maximum size until the end is known.
  if (source.size() == Source::kUnknownSize)
    build.size = qcow2::Limits::kL1Bytes / 8 * std::min(build.geometry().l2_reach(), kLargestReach);
  RETURN_IF_ERROR(qcow2::check(build));
  return build;
}

}  // namespace vc::copy
