#include "appliance/drop_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include "appliance/swap_header.h"
#include "guest/filesystem/swap_files.h"

namespace vc::appliance {

namespace {

// Bytes per write: libguestfs's messages have at most 4 MiB.
constexpr uint64_t kPiece = 2 << 20;

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

// GUID in the names of all shadow copy files. The GUID of the copy itself precedes it.
constexpr std::string_view kShadowCopy = "{3808876b-c176-4e48-b7ae-04046e6cc752}";

Result<void> remove_file(const Appliance& it, const Space& space, const std::string& path,
                         std::vector<DroppedFile>& dropped) {
  guestfs_h* const g = it.handle();
  if (guestfs_is_file(g, path.c_str()) != 1) return {};
  const int64_t size = guestfs_filesize(g, path.c_str());
  RETURN_IF_ERROR(it.check(guestfs_rm(g, path.c_str()), space.device + ":" + path));
  dropped.push_back({space.device, path, static_cast<uint64_t>(std::max<int64_t>(size, 0))});
  return {};
}

Result<void> drop_windows_files(const Appliance& it, const TrimOptions::Drop& drop,
                                const Space& space, std::vector<DroppedFile>& dropped) {
  guestfs_h* const g = it.handle();
  ASSIGN_OR_RETURN(const auto names, it.list(guestfs_ls(g, "/"), space.device));
  for (const std::string& name : names) {
    const std::string known = lower(name);
    if (!(drop.pagefile && known == "pagefile.sys") &&
        !(drop.swapfile && known == "swapfile.sys") && !(drop.hiberfile && known == "hiberfil.sys"))
      continue;
    RETURN_IF_ERROR(remove_file(it, space, "/" + name, dropped));
  }
  if (!drop.shadows) return {};
  ASSIGN_OR_RETURN(const auto shadows, shadow_copies(it, space));
  for (const std::string& path : shadows) RETURN_IF_ERROR(remove_file(it, space, path, dropped));
  return {};
}

// Returns an empty string if there is none.
std::string fstab_text(const Appliance& it) {
  guestfs_h* const g = it.handle();
  const int64_t size = guestfs_filesize(g, "/etc/fstab");
  if (guestfs_is_file(g, "/etc/fstab") != 1 || size < 0 ||
      static_cast<uint64_t>(size) > guest::kLargestFstab)
    return {};
  size_t length = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(
      guestfs_read_file(g, "/etc/fstab", &length), std::free);
  return text ? std::string(text.get(), length) : std::string();
}

// Returns the start of a swap file. Empty if the file is not one.
std::string swap_header(const Appliance& it, const std::string& path) {
  guestfs_h* const g = it.handle();
  if (guestfs_is_file(g, path.c_str()) != 1) return {};
  size_t length = 0;
  const std::unique_ptr<char, decltype(&std::free)> start(
      guestfs_pread(g, path.c_str(), SwapHeader::kKept, 0, &length), std::free);
  if (!start) return {};
  std::string text(start.get(), length);
  return SwapHeader::is_in(text) ? text : std::string();
}

Result<void> drop_swap_files(const Appliance& it, const Space& space,
                             std::vector<DroppedFile>& dropped) {
  guestfs_h* const g = it.handle();
  const std::string zeros(kPiece, '\0');
  for (const std::string& path : guest::swap_file_paths(fstab_text(it))) {
    const std::string header = swap_header(it, path);
    if (header.empty()) continue;
    const std::string what = space.device + ":" + path;
    const int64_t size = guestfs_filesize(g, path.c_str());
    RETURN_IF_ERROR(it.check(size < 0 ? -1 : 0, what));
    const auto put = [&](const char* bytes, uint64_t length, uint64_t at) -> Result<void> {
      while (length > 0) {
        RETURN_IF_ERROR(it.cancelled());
        const int written =
            guestfs_pwrite(g, path.c_str(), bytes, length, static_cast<int64_t>(at));
        RETURN_IF_ERROR(it.check(written <= 0 ? -1 : 0, what));
        bytes += written;
        at += static_cast<uint64_t>(written);
        length -= static_cast<uint64_t>(written);
      }
      return {};
    };
    const std::string kept = SwapHeader::without_session(header);
    if (kept != header) RETURN_IF_ERROR(put(kept.data(), kept.size(), 0));
    const auto end = static_cast<uint64_t>(size);
    for (uint64_t at = SwapHeader::kKept; at < end; at += kPiece)
      RETURN_IF_ERROR(put(zeros.data(), std::min(kPiece, end - at), at));
    dropped.push_back({space.device, path, end});
  }
  return {};
}

}  // namespace

Result<std::vector<std::string>> shadow_copies(const Appliance& appliance, const Space& space) {
  guestfs_h* const g = appliance.handle();
  std::vector<std::string> found;
  bool any = false;
  ASSIGN_OR_RETURN(const auto names, appliance.list(guestfs_ls(g, "/"), space.device));
  for (const std::string& name : names) {
    if (lower(name) != "system volume information") continue;
    const std::string folder = "/" + name;
    if (guestfs_is_dir(g, folder.c_str()) != 1) continue;
    ASSIGN_OR_RETURN(const auto files, appliance.list(guestfs_ls(g, folder.c_str()), space.device));
    for (const std::string& file : files) {
      const std::string known = lower(file);
      if (!known.starts_with("{") || !known.ends_with(kShadowCopy)) continue;
      found.push_back(fmt::format("{}/{}", folder, file));
      // Counts only names with two GUIDs: the catalogue has one, and remains after its copies are
      // deleted.
      any = any || known.size() > kShadowCopy.size();
    }
  }
  if (!any) found.clear();
  return found;
}

Result<void> drop_files(const Appliance& appliance, const TrimOptions::Drop& drop,
                        const Space& space, std::vector<DroppedFile>& dropped) {
  if (space.type == "ntfs") return drop_windows_files(appliance, drop, space, dropped);
  if (drop.swap) return drop_swap_files(appliance, space, dropped);
  return {};
}

}  // namespace vc::appliance
