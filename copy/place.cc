#include "copy/place.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "base/retry.h"
#include "storage/file_storage.h"

namespace vc::copy {

namespace {

std::string folder_of(const std::string& path) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  return folder.empty() ? "." : folder.string();
}

}  // namespace

Result<uint64_t> free_bytes_for(const std::string& path) {
  const std::string folder = folder_of(path);
  struct statvfs space {};
  if (retry(::statvfs, folder.c_str(), &space) != 0) return fail(Error::system(errno, folder));
  return uint64_t{space.f_bavail} * space.f_frsize;
}

Result<void> check_file_place(const std::string& path, bool overwrite, uint64_t needed) {
  namespace fs = std::filesystem;
  struct stat status {};
  std::string target = path;
  if (retry(::lstat, path.c_str(), &status) == 0) {
    if (S_ISDIR(status.st_mode)) return fail(Error::invalid(path + ": is a directory"));
    if (!overwrite)
      return fail(Error::invalid(path + ": exists already: use --force to replace it"));
    std::error_code failed;
    target = fs::canonical(path, failed).string();
    if (failed || !fs::is_regular_file(target))
      return fail(
          Error::invalid(path + ": is not a regular file: only a regular file can be replaced"));
  }
  const std::string folder = folder_of(target);
  if (retry(::access, folder.c_str(), W_OK | X_OK) != 0) return fail(Error::system(errno, folder));
  ASSIGN_OR_RETURN(const uint64_t free, free_bytes_for(target));
  if (needed <= free) return {};
  return fail(Error::protocol(
      ENOSPC, fmt::format("{}: the copy needs {} bytes, but the filesystem of {} has only {} free",
                          path, needed, folder, free)));
}

Result<void> check_device_place(const std::string& path, uint64_t needed, const char* what) {
  ASSIGN_OR_RETURN(const auto device, FileStorage::open_readonly(path));
  ASSIGN_OR_RETURN(const uint64_t size, device->size());
  if (needed <= size) return {};
  return fail(
      Error::protocol(ENOSPC, fmt::format("{}: the device has {} bytes, too few for {} of {}; "
                                          "nothing was written",
                                          path, size, what, needed)));
}

}  // namespace vc::copy
