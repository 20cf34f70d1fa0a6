#include "qcow2/format/build_options.h"

#include <fmt/format.h>

#include "qcow2/format/bitmap_directory.h"

namespace vc::qcow2 {

namespace {

// QEMU has space for 15 characters and a NUL.
constexpr size_t kBackingFormatBytes = 15;

}  // namespace

Result<void> check(const BuildOptions& options) {
  if (options.version != 2 && options.version != 3)
    return fail(Error::invalid(fmt::format("QCOW2 version {}: must be 2 or 3", options.version)));
  if (options.cluster_bits < Geometry::kMinClusterBits ||
      options.cluster_bits > Geometry::kMaxClusterBits)
    return fail(Error::invalid(fmt::format(
        "a cluster size of 2^{} bytes: must be from 512 bytes to 2 MiB", options.cluster_bits)));
  if (options.refcount_order > 6) return fail(Error::invalid("refcounts have 64 bits at most"));
  if (options.version == 2) {
    if (options.refcount_order != 4)
      return fail(Error::invalid("compat=0.10 (version 2) has refcounts of 16 bits only"));
    if (options.extended_l2 || options.lazy_refcounts || !options.data_file.empty() ||
        options.compression_type != CompressionType::kDeflate)
      return fail(
          Error::invalid("extended L2 entries, lazy refcounts, an external data file and zstd need "
                         "compat=1.1 (version 3)"));
  }
  if (options.extended_l2 && options.cluster_bits < Geometry::kMinClusterBitsExtendedL2)
    return fail(Error::invalid("extended L2 entries need clusters of 16 KiB at least"));
  if (options.backing_file.size() > Limits::kBackingNameBytes)
    return fail(
        Error::invalid(fmt::format("the backing file name has {} bytes: {} at most",
                                   options.backing_file.size(), Limits::kBackingNameBytes)));
  if (options.backing_file.empty() && !options.backing_format.empty())
    return fail(Error::invalid("a backing format without a backing file"));
  if (options.backing_format.size() > kBackingFormatBytes)
    return fail(Error::invalid(
        fmt::format("the backing format '{}' has {} bytes: QEMU reads {} at most",
                    options.backing_format, options.backing_format.size(), kBackingFormatBytes)));
  if (options.encryption && (options.encryption->is_locked() || !options.encryption->is_luks()))
    return fail(Error::invalid("only LUKS can encrypt a new image"));
  if (options.encryption && options.data_file_raw)
    return fail(Error::invalid("data_file_raw: an encrypted data file is no raw disk"));
  if (options.data_file_raw && options.data_file.empty())
    return fail(Error::invalid("data_file_raw without a data file"));
  if (options.data_file_raw && !options.backing_file.empty())
    return fail(Error::invalid("an image with a raw data file cannot have a backing file"));
  if (options.version == 2 && !options.bitmaps.empty())
    return fail(Error::invalid("persistent bitmaps need compat=1.1 (version 3)"));
  if (options.bitmaps.size() > kMostBitmaps)
    return fail(Error::invalid(
        fmt::format("{} persistent bitmaps: {} at most", options.bitmaps.size(), kMostBitmaps)));
  for (const NewBitmap& it : options.bitmaps)
    if (const auto fault = find_bitmap_fault(it, options.rounded_size(), options.cluster_bits))
      return fail(Error::invalid(fmt::format("bitmap '{}': {}", it.name, *fault)));
  const Geometry geometry = options.geometry();
  if (options.size > static_cast<uint64_t>(INT64_MAX) - Geometry::kSectorSize ||
      geometry.l1_entries_for(options.rounded_size()) * 8 > Limits::kL1Bytes)
    return fail(Error::invalid(fmt::format(
        "a disk of {} bytes is too large for clusters of {} bytes: {} at most", options.size,
        geometry.cluster_size(), Limits::kL1Bytes / 8 * geometry.l2_reach())));
  return {};
}

}  // namespace vc::qcow2
