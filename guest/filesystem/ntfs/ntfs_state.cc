#include "guest/filesystem/ntfs/ntfs_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "guest/filesystem/ntfs/ntfs_directory.h"

namespace vc::guest {

namespace {

constexpr uint16_t kDirty = 0x1;
constexpr uint16_t kChkdskUnderWay = 0x4000;
// Restart pages are the first two pages of the log. The page size varies.
constexpr uint64_t kRestartArea = 64 << 10;
constexpr size_t kLeastPage = 512;
constexpr const char* kRestartPage = "RSTR";
constexpr const char* kCheckedPage = "CHKD";
constexpr uint16_t kNoClient = 0xFFFF;
constexpr uint16_t kCleanlyStopped = 2;
constexpr uint64_t kFirstPage = 4096;

struct RestartPage {
  uint64_t lsn;
  bool is_clean;
};

// Returns nullopt if there is no page at `at`.
Result<std::optional<RestartPage>> restart_page(const Fields& log, uint64_t at) {
  const Fields rest = log.part(at);
  const char* const magic = rest.has(0, kCheckedPage) ? kCheckedPage : kRestartPage;
  if (!rest.has(0, magic)) return std::optional<RestartPage>();
  const uint64_t size = rest.le32(0x10);
  const size_t area = rest.le16(0x18);
  if (!is_power_of_two(size) || size < kLeastPage || size > rest.size() ||
      (at != 0 && at != size) || area % 8 != 0 || area + 48 > kLeastPage - 2)
    return doubt("its log is damaged");
  Block whole(rest.part(0, size));
  // A page written by chkdsk may have no fixups.
  if (magic == kRestartPage || rest.le16(6) != 0)
    RETURN_IF_ERROR(NtfsVolume::undo_fixups(whole, magic));
  const Fields page = whole.fields();
  // Version 2.0 means that Windows 8 or later has the volume mounted, or uses fast startup.
  if (page.le16(0x1C) != 1 || page.le16(0x1A) != 1)
    return unclean(fmt::format(
        "its log has version {}.{}: Windows was not shut down, or was shut down with fast startup",
        page.le16(0x1C), page.le16(0x1A)));
  return RestartPage{page.le64(area), page.le16(area + 12) == kNoClient ||
                                          (page.le16(area + 14) & kCleanlyStopped) != 0};
}

// Returns true if the log has no page.
Result<bool> check_log(const NtfsVolume& volume) {
  ASSIGN_OR_RETURN(const NtfsAttribute log,
                   volume.get(NtfsRecord::kLogFile, NtfsAttributeType::kData));
  if (log.is_resident) return doubt("its log is damaged");
  ASSIGN_OR_RETURN(const Block block, volume.read(log, 0, std::min(log.size, kRestartArea)));
  // Drivers of Linux leave the log like this.
  if (block.fields().size() > 0 && block.fields().all(0xFF)) return true;
  std::optional<RestartPage> newest;
  for (uint64_t at = 0; at < kRestartArea; at = std::max<uint64_t>(at * 2, kLeastPage)) {
    ASSIGN_OR_RETURN(const auto page, restart_page(block.fields(), at));
    if (!page) continue;
    if (!newest || page->lsn > newest->lsn)
      newest = page;
    else if (page->lsn == newest->lsn)
      newest->is_clean = newest->is_clean && page->is_clean;
  }
  if (!newest) return doubt("its log has no restart page");
  if (!newest->is_clean) return unclean("its log must be replayed");
  return false;
}

}  // namespace

Result<NtfsState> check_ntfs_clean(const NtfsVolume& volume) {
  ASSIGN_OR_RETURN(const Block record, volume.record(NtfsRecord::kVolume));
  ASSIGN_OR_RETURN(const auto information,
                   volume.find(record, NtfsAttributeType::kVolumeInformation));
  if (!information || !information->is_resident || information->size < 12)
    return doubt("its volume information is damaged");
  const uint16_t flags = information->value.fields().le16(10);
  if ((flags & kDirty) != 0) return unclean("it was not shut down cleanly, or must be checked");
  if ((flags & kChkdskUnderWay) != 0) return doubt("chkdsk has not finished");
  NtfsState state;
  ASSIGN_OR_RETURN(state.has_empty_log, check_log(volume));
  ASSIGN_OR_RETURN(const auto name, volume.find(record, NtfsAttributeType::kVolumeName));
  if (name && name->is_resident) state.label = utf16_text(name->value.fields());
  return state;
}

// Same rule as libntfs-3g: the file of a resumed session begins with "wake", or with zeros.
Result<bool> is_ntfs_hibernated(const NtfsVolume& volume) {
  ASSIGN_OR_RETURN(const auto entry, find_in_root(volume, "hiberfil.sys"));
  if (!entry) return false;
  ASSIGN_OR_RETURN(const Block record, volume.record(entry->record));
  ASSIGN_OR_RETURN(const auto data, volume.find(record, NtfsAttributeType::kData));
  if (!data || data->size < kFirstPage) return true;
  if (data->initialized < kFirstPage) return false;
  ASSIGN_OR_RETURN(const Block page, volume.read(*data, 0, kFirstPage));
  const Fields it = page.fields();
  return !it.has(0, "wake") && !it.has(0, "WAKE") && !it.all(0);
}

}  // namespace vc::guest
