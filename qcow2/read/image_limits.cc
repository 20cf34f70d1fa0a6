#include "qcow2/read/image_limits.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <vector>

#include "base/byte_order.h"
#include "qcow2/format/l2_entry.h"
#include "qcow2/read/image.h"

namespace vc::qcow2 {

namespace {

Failure too_much(const std::string& what) {
  return fail(Error::unsupported(what + " (limit for untrusted images)"));
}

Result<void> check_size(uint64_t size, const ImageLimits& limits) {
  if (size <= limits.virtual_size) return {};
  return too_much(
      fmt::format("the disk has {} bytes, but only {} are allowed", size, limits.virtual_size));
}

uint32_t bitmaps_in(const Header& header) {
  const HeaderExtension* const found = header.find_extension(HeaderExtension::kBitmaps);
  return found && found->data.size() >= 4 ? load_be32(found->data.data()) : 0;
}

// Walks one L1 table and its L2 tables.
class BoundedWalk {
 public:
  BoundedWalk(const Image& image, const ImageLimits& limits, uint64_t file_size)
      : image_(image),
        geometry_(image.geometry()),
        most_(std::max(ImageLimits::kFreeData, saturated(limits.ratio, file_size))),
        file_size_(file_size) {}

  Result<void> run(HostOffset l1_table, uint64_t l1_entries, uint64_t disk_size) {
    ASSIGN_OR_RETURN(const auto tables, read_l1(l1_table, l1_entries, disk_size));
    const auto twice = std::adjacent_find(tables.begin(), tables.end());
    if (twice != tables.end())
      return too_much(fmt::format("the L2 table at {:#x} is used by several L1 entries", *twice));
    uint64_t mapped = 0;
    for (const uint64_t table : tables) {
      ASSIGN_OR_RETURN(const uint64_t of_table, mapped_by(HostOffset(table)));
      mapped += of_table;
      if (mapped > most_)
        return too_much(
            fmt::format("its {} bytes map more than {} bytes of data", file_size_, most_));
    }
    return {};
  }

 private:
  static uint64_t saturated(uint64_t a, uint64_t b) {
    return a != 0 && b > UINT64_MAX / a ? UINT64_MAX : a * b;
  }

  // Returns the offsets of the L2 tables that the disk needs, in ascending order.
  Result<std::vector<uint64_t>> read_l1(HostOffset l1_table, uint64_t l1_entries,
                                        uint64_t disk_size) const {
    const uint64_t reach = geometry_.l2_reach();
    const uint64_t needed = disk_size / reach + (disk_size % reach != 0 ? 1 : 0);
    std::vector<std::byte> bytes(std::min({l1_entries, needed, Limits::kL1Bytes / 8}) * 8);
    // Bytes past the end of the file read as zeros here; other code reports them.
    RETURN_IF_ERROR(image_.storage().read(l1_table, bytes));
    std::vector<uint64_t> tables;
    for (size_t at = 0; at < bytes.size(); at += 8)
      if (const uint64_t table = load_be64(&bytes[at]) & kEntryOffsetMask; table != 0)
        tables.push_back(table);
    std::sort(tables.begin(), tables.end());
    return tables;
  }

  Result<uint64_t> mapped_by(HostOffset table) {
    buffer_.assign(geometry_.cluster_size(), std::byte{0});
    RETURN_IF_ERROR(image_.storage().read(table, buffer_));
    const bool extended = geometry_.extended_l2();
    uint64_t mapped = 0;
    for (uint64_t i = 0; i < buffer_.size() / geometry_.l2_entry_size(); ++i) {
      const L2Entry entry = load_l2_entry(buffer_, i, extended);
      if (extended && !entry.compressed())
        mapped += static_cast<uint64_t>(std::popcount(entry.allocated_mask())) *
                  geometry_.subcluster_size();
      else if (entry.compressed() || (entry.host().value() != 0 && !entry.zero_flag()))
        mapped += geometry_.cluster_size();
    }
    return mapped;
  }

  const Image& image_;
  const Geometry& geometry_;
  const uint64_t most_;  // bytes of data
  const uint64_t file_size_;
  std::vector<std::byte> buffer_;
};

}  // namespace

Result<void> check_header_limits(const Header& header, const ImageLimits& limits) {
  RETURN_IF_ERROR(check_size(header.size, limits));
  if (header.snapshot_count > limits.snapshots)
    return too_much(fmt::format("it has {} internal snapshots, but only {} are allowed",
                                header.snapshot_count, limits.snapshots));
  if (bitmaps_in(header) > limits.bitmaps)
    return too_much(fmt::format("it has {} bitmaps, but only {} are allowed", bitmaps_in(header),
                                limits.bitmaps));
  return {};
}

Result<void> check_table_limits(const Image& image, const ImageLimits& limits) {
  ASSIGN_OR_RETURN(const uint64_t file_size, image.storage().size());
  BoundedWalk walk(image, limits, file_size);
  const Header& header = image.header();
  RETURN_IF_ERROR(walk.run(header.l1_table, header.l1_entries, header.size));
  for (const Snapshot& it : image.snapshots()) {
    RETURN_IF_ERROR(check_size(it.disk_size, limits));
    RETURN_IF_ERROR(walk.run(it.l1_table, it.l1_entries, it.disk_size));
  }
  return {};
}

}  // namespace vc::qcow2
