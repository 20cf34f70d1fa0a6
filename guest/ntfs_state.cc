#include "guest/ntfs_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <optional>

namespace guest {

using qcow2::Result;

namespace {

constexpr uint16_t kDirty = 0x1;
constexpr uint16_t kChkdskUnderWay = 0x4000;
// Restart pages are the first two pages of the log, of whichever size they are.
constexpr uint64_t kRestartArea = 64 << 10;
constexpr size_t kLeastPage = 512;
constexpr uint16_t kNoClient = 0xFFFF;
constexpr uint16_t kCleanlyStopped = 2;
constexpr uint64_t kFirstPage = 4096;
constexpr uint64_t kLargestRoot = 64 << 20;  // bytes of its index

struct RestartPage {
  uint64_t lsn;
  bool is_clean;
};

// Nothing if there is no page at `at`.
Result<std::optional<RestartPage>> restart_page(const Fields& log, uint64_t at) {
  const Fields page = log.part(at);
  if (!page.has(0, "RSTR") && !page.has(0, "CHKD")) return std::optional<RestartPage>();
  const uint64_t size = page.le32(0x10);
  const size_t area = page.le16(0x18);
  if (!is_power_of_two(size) || size < kLeastPage || (at != 0 && at != size) || area % 8 != 0 ||
      area + 48 > kLeastPage - 2 || area + 48 > page.size())
    return doubt("its log is damaged");
  // 2.0: Windows 8 and later, while the volume is mounted, or with fast startup.
  if (page.le16(0x1C) != 1 || page.le16(0x1A) != 1)
    return doubt(
        fmt::format("its log has version {}.{}: Windows was not shut down, or with fast "
                    "startup",
                    page.le16(0x1C), page.le16(0x1A)));
  return RestartPage{page.le64(area), page.le16(area + 12) == kNoClient ||
                                          (page.le16(area + 14) & kCleanlyStopped) != 0};
}

Result<void> check_log(const NtfsVolume& volume) {
  ASSIGN_OR_RETURN(const NtfsAttribute log,
                   volume.get(NtfsRecord::kLogFile, NtfsAttributeType::kData));
  if (log.is_resident) return doubt("its log is damaged");
  ASSIGN_OR_RETURN(const Block block, volume.read(log, 0, std::min(log.size, kRestartArea)));
  // As drivers of Linux leave it.
  if (block.fields().size() > 0 && block.fields().all(0xFF)) return {};
  std::optional<RestartPage> newest;
  for (uint64_t at = 0; at < kRestartArea; at = std::max<uint64_t>(at * 2, kLeastPage)) {
    ASSIGN_OR_RETURN(const auto page, restart_page(block.fields(), at));
    if (page && (!newest || page->lsn > newest->lsn)) newest = page;
  }
  if (!newest) return doubt("its log has no restart page");
  if (!newest->is_clean) return doubt("its log must be replayed");
  return {};
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

// The record of the file that [at, end) of `index` names hiberfil.sys.
Result<std::optional<uint64_t>> find_hiberfile(const Fields& index, uint64_t at, uint64_t end) {
  end = std::min<uint64_t>(end, index.size());
  while (at + 16 <= end) {
    const uint64_t length = index.le16(at + 8);
    if (length < 16 || length > end - at) return doubt("its root directory is damaged");
    if ((index.le16(at + 12) & 2) != 0) break;
    const Fields key = index.part(at + 16, index.le16(at + 10));
    if (lower(utf16_text(key.part(0x42, key.u8(0x40) * size_t{2}))) == "hiberfil.sys")
      return std::optional<uint64_t>(index.le64(at) & 0xFFFFFFFFFFFF);
    at += length;
  }
  return std::optional<uint64_t>();
}

// Where the entries of an index node are, from its header at `at` on.
Result<std::optional<uint64_t>> find_in_node(const Fields& node, size_t at) {
  return find_hiberfile(node, at + node.le32(at), at + uint64_t{node.le32(at + 4)});
}

Result<std::optional<uint64_t>> hiberfile_of(const NtfsVolume& volume) {
  ASSIGN_OR_RETURN(const Block root, volume.record(NtfsRecord::kRoot));
  ASSIGN_OR_RETURN(const auto top, volume.find(root, NtfsAttributeType::kIndexRoot, "$I30"));
  if (!top || !top->is_resident) return doubt("its root directory is damaged");
  ASSIGN_OR_RETURN(auto found, find_in_node(top->value.fields(), 16));
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
    ASSIGN_OR_RETURN(found, find_in_node(block.fields(), 0x18));
  }
  return found;
}

}  // namespace

Result<std::string> check_ntfs_clean(const NtfsVolume& volume) {
  ASSIGN_OR_RETURN(const Block record, volume.record(NtfsRecord::kVolume));
  ASSIGN_OR_RETURN(const auto information,
                   volume.find(record, NtfsAttributeType::kVolumeInformation));
  if (!information || !information->is_resident || information->size < 12)
    return doubt("its volume information is damaged");
  const uint16_t flags = information->value.fields().le16(10);
  if ((flags & kDirty) != 0) return doubt("it was not shut down cleanly, or must be checked");
  if ((flags & kChkdskUnderWay) != 0) return doubt("chkdsk has not come to its end");
  RETURN_IF_ERROR(check_log(volume));
  ASSIGN_OR_RETURN(const auto name, volume.find(record, NtfsAttributeType::kVolumeName));
  return name && name->is_resident ? utf16_text(name->value.fields()) : std::string();
}

// As libntfs-3g decides: a session that was resumed begins with "wake", or is zeros.
Result<bool> is_ntfs_hibernated(const NtfsVolume& volume) {
  ASSIGN_OR_RETURN(const auto number, hiberfile_of(volume));
  if (!number) return false;
  ASSIGN_OR_RETURN(const Block record, volume.record(*number));
  ASSIGN_OR_RETURN(const auto data, volume.find(record, NtfsAttributeType::kData));
  if (!data || data->size < kFirstPage) return true;
  if (data->initialized < kFirstPage) return false;
  ASSIGN_OR_RETURN(const Block page, volume.read(*data, 0, kFirstPage));
  const Fields it = page.fields();
  return !it.has(0, "wake") && !it.has(0, "WAKE") && !it.all(0);
}

}  // namespace guest
