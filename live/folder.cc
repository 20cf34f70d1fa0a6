#include "live/folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <cerrno>
#include <chrono>
#include <thread>

#include "base/poll_interval.h"
#include "base/retry.h"
#include "storage/file_storage.h"

namespace vc::live {

namespace {

// QEMU closes a file shortly after a block job has ended.
constexpr unsigned kTriesToRemove = 100;

}  // namespace

Result<LiveFolder> LiveFolder::open(const std::string& path, const std::string& backup) {
  ASSIGN_OR_RETURN(Directory directory, Directory::open(Directory::parent_of(path)));
  LiveFolder folder(std::move(directory), Directory::name_of(path), backup);
  const auto status = folder.directory_.status(folder.disk_);
  if (!status) return fail(Error::system(ENOENT, path));
  if (S_ISLNK(status->st_mode))
    return fail(Error::invalid(
        path + ": is a symbolic link: let the definition of the domain name the file itself"));
  if (!S_ISREG(status->st_mode)) return fail(Error::invalid(path + ": is not a regular file"));
  return folder;
}

bool LiveFolder::is(const std::string& path, const std::string& name) const {
  if (Directory::name_of(path) != name) return false;
  struct stat status {};
  return retry(::stat, Directory::parent_of(path).c_str(), &status) == 0 &&
         FileIdentity::of(status) == FileIdentity::of(directory_.fd());
}

bool LiveFolder::are_same(const std::string& a, const std::string& b) const {
  const auto status = directory_.status(a);
  return status && directory_.holds(b, FileIdentity::of(*status));
}

Result<uint64_t> LiveFolder::free_space() const {
  struct statvfs status {};
  if (retry(::fstatvfs, directory_.fd(), &status) != 0)
    return fail(Error::system(errno, directory_.path()));
  return uint64_t{status.f_bavail} * status.f_frsize;
}

Result<void> LiveFolder::remove_unused(const std::string& name) const {
  if (!has(name)) return {};
  ASSIGN_OR_RETURN(const auto file, FileStorage::open_readonly_in(directory_, name));
  Result<void> locked;
  for (unsigned i = 0; i < kTriesToRemove; ++i) {
    locked = file->lock(ImageClaim::writing(), "it is not removed");
    if (locked) break;
    std::this_thread::sleep_for(kPollInterval);
  }
  RETURN_IF_ERROR(locked);
  if (!directory_.holds(name, file->identity()))
    return fail(Error::invalid(path_to(name) + ": another process has replaced this file"));
  RETURN_IF_ERROR(directory_.remove(name));
  return directory_.flush();
}

Result<void> LiveFolder::link_over(const std::string& from, const std::string& to) const {
  ASSIGN_OR_RETURN(const Descriptor file, directory_.open_file(from, O_RDONLY));
  if (!has(to)) {
    RETURN_IF_ERROR(directory_.link(file.get(), to));
    return directory_.flush();
  }
  const std::string between = "." + disk_ + ".link";
  if (has(between)) RETURN_IF_ERROR(directory_.remove(between));
  RETURN_IF_ERROR(directory_.link(file.get(), between));
  RETURN_IF_ERROR(directory_.rename(between, to, 0));
  // A rename of one name of a file to another name of the same file does nothing.
  if (has(between)) RETURN_IF_ERROR(directory_.remove(between));
  return directory_.flush();
}

}  // namespace vc::live
