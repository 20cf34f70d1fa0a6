#include "guest/filesystem/ntfs/ntfs_directory.h"

#include <algorithm>

#include "base/rounding.h"

namespace vc::guest {

namespace {

using Entry = Result<std::optional<NtfsEntry>>;

constexpr uint64_t kLargestRoot = 64 << 20;  // index of the directory, bytes

// Searches the entries [at, end) of `index`.
Entry find_in_entries(const Fields& index, uint64_t at, uint64_t end, std::string_view name) {
  end = std::min<uint64_t>(end, index.size());
  while (at + 16 <= end) {
    const uint64_t length = index.le16(at + 8);
    if (length < 16 || length > end - at) return doubt("its root directory is damaged");
    if ((index.le16(at + 12) & 2) != 0) break;
    const Fields key = index.part(at + 16, index.le16(at + 10));
    if (lower_text(utf16_text(key.part(0x42, key.u8(0x40) * size_t{2}))) == name)
      return std::optional(NtfsEntry{index.le64(at) & 0xFFFFFFFFFFFF, index.le16(at + 6)});
    at += length;
  }
  return std::optional<NtfsEntry>();
}

// Searches an index node, whose header is at `at`.
Entry find_in_node(const Fields& node, size_t at, std::string_view name) {
  return find_in_entries(node, at + node.le32(at), at + uint64_t{node.le32(at + 4)}, name);
}

}  // namespace

Entry find_in_root(const NtfsVolume& volume, std::string_view name) {
  ASSIGN_OR_RETURN(const Block root, volume.record(NtfsRecord::kRoot));
  ASSIGN_OR_RETURN(const auto top, volume.find(root, NtfsAttributeType::kIndexRoot, "$I30"));
  if (!top || !top->is_resident) return doubt("its root directory is damaged");
  ASSIGN_OR_RETURN(auto found, find_in_node(top->value.fields(), 16, name));
  if (found) return found;
  ASSIGN_OR_RETURN(const auto blocks,
                   volume.find(root, NtfsAttributeType::kIndexAllocation, "$I30"));
  if (!blocks) return found;
  ASSIGN_OR_RETURN(const auto in_use, volume.find(root, NtfsAttributeType::kBitmap, "$I30"));
  const uint64_t size = top->value.fields().le32(8);
  if (!in_use || !is_power_of_two(size) || size < 512 || size > 64 << 10 ||
      blocks->size > kLargestRoot)
    return doubt("its root directory is damaged");
  const uint64_t count = blocks->size / size;
  ASSIGN_OR_RETURN(const Block bits, volume.read(*in_use, 0, divide_up(count, 8)));
  for (uint64_t number = 0; number < count && !found; ++number) {
    if ((bits.fields().u8(number / 8) >> (number % 8) & 1) == 0) continue;
    ASSIGN_OR_RETURN(Block block, volume.read(*blocks, number * size, size));
    RETURN_IF_ERROR(NtfsVolume::undo_fixups(block, "INDX"));
    ASSIGN_OR_RETURN(found, find_in_node(block.fields(), 0x18, name));
  }
  return found;
}

}  // namespace vc::guest
