#include "optimize/disk_swap.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>

#include "optimize/file_attributes.h"
#include "qcow2/file_storage.h"
#include "qcow2/header.h"

namespace optimize {

using qcow2::Error;
using qcow2::fail;
using qcow2::Result;

namespace {

Result<std::string> without_links(const std::string& path) {
  const std::unique_ptr<char, void (*)(void*)> real(::realpath(path.c_str(), nullptr), std::free);
  if (!real) return fail(Error::system(errno, path));
  return std::string(real.get());
}

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::string fresh_name(const std::string& disk) {
  const size_t slash = disk.rfind('/');
  return disk.substr(0, slash + 1) + "." + disk.substr(slash + 1) + ".fresh";
}

bool exists(const std::string& path) {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0;
}

bool same_file(const std::string& a, const std::string& b) {
  struct stat first {};
  struct stat second {};
  return ::lstat(a.c_str(), &first) == 0 && ::lstat(b.c_str(), &second) == 0 &&
         first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

Result<void> flush_folder(const std::string& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return fail(Error::system(errno, folder));
  const int failed = ::fsync(fd) == 0 ? 0 : errno;
  ::close(fd);
  // Some filesystems have no such thing for folders.
  if (failed != 0 && failed != EINVAL)
    return fail(Error::system(failed, folder + ": flush to disk"));
  return {};
}

Result<void> rename_to(const std::string& from, const std::string& to, unsigned flags) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags) == 0)
    return flush_folder(folder_of(to));
  return fail(Error::system(errno, fmt::format("{}: rename to {}", from, to)));
}

Result<void> remove_file(const std::string& path) {
  if (::unlink(path.c_str()) != 0) return fail(Error::system(errno, path + ": remove"));
  return flush_folder(folder_of(path));
}

// Bytes of the disk in the file; nothing: it cannot be read.
std::optional<uint64_t> disk_size(const std::string& path) {
  const auto file = qcow2::FileStorage::open_readonly(path);
  if (!file) return std::nullopt;
  if (const auto header = qcow2::Header::read(**file, qcow2::Header::Purpose::kTell))
    return header->size;
  const auto length = (*file)->size();
  return length ? std::optional(*length) : std::nullopt;
}

// Whether the file at `path` may be a copy of the disk at `disk`, or may have been it.
bool like_one(const std::string& path, const std::string& disk) {
  const auto size = disk_size(path);
  return size && size == disk_size(disk);
}

// Tries whether a file in `folder` can have the owner that `status` says, rather than to learn it
// when all is done.
Result<void> can_be_given_to(const std::string& folder, const struct stat& status) {
  const int fd = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd < 0) return {};  // then it is tried later
  const int failed = ::fchown(fd, status.st_uid, status.st_gid) == 0 ? 0 : errno;
  ::close(fd);
  if (failed == 0) return {};
  return fail(Error::system(
      failed,
      fmt::format("{}: a file here cannot have the disk's owner, {}:{}: run as that one, or "
                  "as root",
                  folder, status.st_uid, status.st_gid)));
}

// Whether `errnum` is how a filesystem says that it has no such thing.
bool cannot(int errnum) {
  return errnum == EPERM || errnum == EOPNOTSUPP || errnum == ENOSYS || errnum == EINVAL ||
         errnum == EMLINK;
}

}  // namespace

Result<DiskSwap> DiskSwap::plan(const std::string& path, std::optional<std::string> suffix) {
  DiskSwap swap;
  ASSIGN_OR_RETURN(swap.disk_, without_links(path));
  swap.folder_ = folder_of(swap.disk_);
  swap.fresh_ = fresh_name(swap.disk_);
  if (suffix) {
    if (suffix->empty() || suffix->find('/') != std::string::npos)
      return fail(Error::invalid(fmt::format("'{}' is no suffix for the backup", *suffix)));
    swap.backup_ = swap.disk_ + *suffix;
  }
  swap.fd_ = ::open(swap.disk_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (swap.fd_ < 0) return fail(Error::system(errno, path));
  struct stat status {};
  if (::fstat(swap.fd_, &status) != 0) return fail(Error::system(errno, path));
  if (!S_ISREG(status.st_mode))
    return fail(Error::invalid(path + ": is no regular file: nothing can take its place"));
  // NFS makes of it a lock that wants a writable file, and some filesystems have none: there our
  // other locks must do.
  if (::flock(swap.fd_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
    return fail(Error::system(
        EBUSY, path + ": another virt-compact is about to put something in its place"));
  if (::access(swap.folder_.c_str(), W_OK | X_OK) != 0)
    return fail(Error::system(errno, swap.folder_ + ": write"));
  RETURN_IF_ERROR(can_be_given_to(swap.folder_, status));
  RETURN_IF_ERROR(swap.settle_leftovers());
  if (!swap.backup_.empty() && exists(swap.backup_))
    return fail(Error::invalid(fmt::format(
        "{}: is there already: remove it, or name another suffix (--backup)", swap.backup_)));
  // Again: a leftover may have been one of them.
  if (::fstat(swap.fd_, &status) != 0) return fail(Error::system(errno, path));
  swap.other_names_ = static_cast<unsigned>(status.st_nlink - 1);
  return swap;
}

DiskSwap::DiskSwap(DiskSwap&& other) noexcept
    : disk_(std::move(other.disk_)),
      fresh_(std::move(other.fresh_)),
      backup_(std::move(other.backup_)),
      folder_(std::move(other.folder_)),
      remarks_(std::move(other.remarks_)),
      other_names_(other.other_names_),
      fd_(std::exchange(other.fd_, -1)),
      steps_(other.steps_),
      exchanged_(other.exchanged_) {}

DiskSwap::~DiskSwap() {
  if (fd_ >= 0) ::close(fd_);
}

// A run that was killed is one of these:
//
//     before step 1      .DISK.fresh is a copy that nobody needs
//     between the steps  DISK.bak is DISK: the link is of no use yet
//     (exchanged)        .DISK.fresh is the old disk, which is older than DISK: it becomes DISK.bak
Result<void> DiskSwap::settle_leftovers() {
  if (!backup_.empty() && same_file(disk_, backup_)) {
    RETURN_IF_ERROR(remove_file(backup_));
    remarks_.push_back(fmt::format(
        "{}: an earlier run was stopped before the swap: it was the disk itself, and is removed",
        backup_));
  }
  struct stat fresh {};
  if (::lstat(fresh_.c_str(), &fresh) != 0) return {};
  struct stat disk {};
  if (::fstat(fd_, &disk) != 0) return fail(Error::system(errno, disk_));
  if (!S_ISREG(fresh.st_mode) || !like_one(fresh_, disk_))
    return fail(Error::invalid(
        fresh_ + ": is in the way, and not what a run of this command would have left: move it"));
  // An exchange leaves the new file with the later birth under the disk's name.  Where that cannot
  // be told for sure, nothing is thrown away.
  struct statx fresh_born {};
  struct statx disk_born {};
  const bool told =
      ::statx(AT_FDCWD, fresh_.c_str(), AT_SYMLINK_NOFOLLOW, STATX_BTIME, &fresh_born) == 0 &&
      ::statx(AT_FDCWD, disk_.c_str(), AT_SYMLINK_NOFOLLOW, STATX_BTIME, &disk_born) == 0 &&
      (fresh_born.stx_mask & disk_born.stx_mask & STATX_BTIME) != 0;
  const auto born = [](const struct statx& it) {
    return std::pair(it.stx_btime.tv_sec, it.stx_btime.tv_nsec);
  };
  if (!told)
    return fail(Error::invalid(
        fmt::format("{}: was left by a run that was stopped: remove it if {} is as it should be",
                    fresh_, disk_)));
  if (born(fresh_born) >= born(disk_born)) {
    RETURN_IF_ERROR(remove_file(fresh_));
    remarks_.push_back(
        fmt::format("{}: an earlier run was stopped before the swap: its copy is removed", fresh_));
    return {};
  }
  if (backup_.empty())
    return fail(Error::invalid(fmt::format(
        "{}: an earlier run was stopped within the swap: this is the disk as it was before; remove "
        "it, or rename it to keep it",
        fresh_)));
  RETURN_IF_ERROR(rename_to(fresh_, backup_, RENAME_NOREPLACE));
  remarks_.push_back(fmt::format(
      "{}: an earlier run was stopped within the swap: this is the disk as it was before",
      backup_));
  return {};
}

Result<void> DiskSwap::carry_over() {
  const int fd = ::open(fresh_.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return fail(Error::system(errno, fresh_));
  auto lost = copy_attributes(fd_, fd);
  const int failed = ::fsync(fd) == 0 ? 0 : errno;
  ::close(fd);
  if (!lost) return fail(Error(lost.error()).with_context(fresh_));
  if (failed != 0) return fail(Error::system(failed, fresh_ + ": flush to disk"));
  for (const std::string& name : *lost)
    remarks_.push_back(fmt::format("{}: the attribute {} cannot be carried over", disk_, name));
  return {};
}

Result<void> DiskSwap::keep_old() {
  if (backup_.empty()) return {};
  if (::link(disk_.c_str(), backup_.c_str()) == 0) return flush_folder(folder_);
  if (!cannot(errno))
    return fail(Error::system(errno, backup_ + ": keep the disk under this name"));
  RETURN_IF_ERROR(rename_to(fresh_, disk_, RENAME_EXCHANGE));
  exchanged_ = true;
  return {};
}

Result<void> DiskSwap::put_fresh() {
  if (exchanged_) return rename_to(fresh_, backup_, RENAME_NOREPLACE);
  return rename_to(fresh_, disk_, 0);
}

Result<bool> DiskSwap::step() {
  if (steps_ == 0) {
    RETURN_IF_ERROR(keep_old());
  } else if (steps_ == 1) {
    RETURN_IF_ERROR(put_fresh());
  }
  return ++steps_ >= 2;
}

Result<void> DiskSwap::run() {
  while (true) {
    ASSIGN_OR_RETURN(const bool done, step());
    if (done) return {};
  }
}

void DiskSwap::give_up() {
  struct stat old {};
  struct stat disk {};
  if (exchanged_ || ::fstat(fd_, &old) != 0 || ::lstat(disk_.c_str(), &disk) != 0 ||
      old.st_dev != disk.st_dev || old.st_ino != disk.st_ino)
    return;
  ::unlink(fresh_.c_str());
  if (!backup_.empty() && same_file(disk_, backup_)) ::unlink(backup_.c_str());
}

Result<Rollback> roll_back(const std::string& path, const std::string& suffix, bool remove) {
  Rollback result;
  ASSIGN_OR_RETURN(result.disk, without_links(path));
  result.backup = result.disk + suffix;
  if (suffix.empty() || suffix.find('/') != std::string::npos)
    return fail(Error::invalid(fmt::format("'{}' is no suffix for the backup", suffix)));
  struct stat status {};
  if (::lstat(result.backup.c_str(), &status) != 0)
    return fail(Error::system(errno, result.backup + ": the backup"));
  if (!S_ISREG(status.st_mode)) return fail(Error::invalid(result.backup + ": is no regular file"));
  if (same_file(result.disk, result.backup))
    return fail(Error::invalid(
        fmt::format("{}: is {} itself: there was no swap", result.backup, result.disk)));
  // Nobody writes to either of them, nor begins to, until they have changed places.
  ASSIGN_OR_RETURN(const auto disk, qcow2::FileStorage::open_readonly(result.disk));
  ASSIGN_OR_RETURN(const auto backup, qcow2::FileStorage::open_readonly(result.backup));
  constexpr const char* kAdvice = "shut down what uses it";
  RETURN_IF_ERROR(disk->lock(qcow2::ImageClaim::writing(), kAdvice));
  RETURN_IF_ERROR(backup->lock(qcow2::ImageClaim::writing(), kAdvice));

  if (::renameat2(AT_FDCWD, result.backup.c_str(), AT_FDCWD, result.disk.c_str(),
                  RENAME_EXCHANGE) != 0) {
    if (!cannot(errno))
      return fail(
          Error::system(errno, fmt::format("{}: exchange with {}", result.disk, result.backup)));
    const std::string kept = result.disk + ".rolled-back";
    if (::link(result.disk.c_str(), kept.c_str()) != 0)
      return fail(Error::system(errno, kept + ": keep the disk under this name"));
    RETURN_IF_ERROR(flush_folder(folder_of(result.disk)));
    RETURN_IF_ERROR(rename_to(result.backup, result.disk, 0));
    result.backup = kept;
  }
  RETURN_IF_ERROR(flush_folder(folder_of(result.disk)));
  if (remove) {
    RETURN_IF_ERROR(remove_file(result.backup));
    result.backup.clear();
  }
  return result;
}

}  // namespace optimize
