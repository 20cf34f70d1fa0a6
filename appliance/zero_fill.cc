#include "appliance/zero_fill.h"

#include <fmt/format.h>

#include <string>
#include <vector>

namespace vc::appliance {

namespace {

constexpr int kFileSize = 64 << 20;
constexpr int kSmallestFile = 64 << 10;
constexpr const char* kName = "/virt-compact-zeros-";

// Also removes the files of a killed run.
Result<void> remove_files(const Appliance& it) {
  guestfs_h* const g = it.handle();
  ASSIGN_OR_RETURN(const auto names,
                   it.list(guestfs_glob_expand(g, fmt::format("{}*", kName).c_str()), "files"));
  for (const std::string& name : names)
    RETURN_IF_ERROR(it.check(guestfs_rm_f(g, name.c_str()), name));
  return it.check(guestfs_sync(g), "sync");
}

}  // namespace

Result<void> zero_fill(const Appliance& appliance, const std::function<void(uint64_t)>& wrote) {
  guestfs_h* const g = appliance.handle();
  RETURN_IF_ERROR(remove_files(appliance));
  Result<void> result;
  uint64_t filled = 0;
  unsigned number = 0;
  // When a file does not fit, keeps what was written of appliance, and fills the rest with smaller
  // files.
  for (int size = kFileSize; size >= kSmallestFile;) {
    const std::string name = fmt::format("{}{}", kName, number++);
    const int done = guestfs_fill(g, 0, size, name.c_str());
    result = appliance.cancelled();
    if (!result) break;
    if (done == 0) {
      filled += static_cast<uint64_t>(size);
      wrote(filled);
      continue;
    }
    if (const int errnum = guestfs_last_errno(g); errnum != ENOSPC && errnum != EDQUOT) {
      result = fail(appliance.last_error("filling free space"));
      break;
    }
    size /= 4;
  }
  if (result) result = appliance.check(guestfs_sync(g), "sync");
  const auto removed = remove_files(appliance);
  return result ? removed : result;
}

}  // namespace vc::appliance
