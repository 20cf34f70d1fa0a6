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

#include "base/retry.h"
#include "base/took_effect.h"
#include "optimize/file_attributes.h"
#include "qcow2/format/header.h"
#include "storage/file_storage.h"

namespace vc::optimize {

namespace {

Result<std::string> without_links(const std::string& path) {
  const std::unique_ptr<char, void (*)(void*)> real(::realpath(path.c_str(), nullptr), std::free);
  if (!real) return fail(Error::system(errno, path));
  return std::string(real.get());
}

// Renames a file, and flushes the folder.
Result<void> rename_and_flush(const Directory& folder, const std::string& from,
                              const std::string& to, unsigned flags) {
  RETURN_IF_ERROR(folder.rename(from, to, flags));
  return folder.flush();
}

Result<void> remove_and_flush(const Directory& folder, const std::string& name) {
  RETURN_IF_ERROR(folder.remove(name));
  return folder.flush();
}

Failure not_ours(const std::string& path) {
  return fail(Error::invalid(
      path + ": another process has replaced this file: inspect it before you continue"));
}

// Returns the virtual size of the disk in the file, bytes. nullopt if the file cannot be read.
std::optional<uint64_t> disk_size(const Directory& folder, const std::string& name) {
  const auto file = FileStorage::open_readonly_in(folder, name);
  if (!file) return std::nullopt;
  if (const auto header = qcow2::Header::read(**file, qcow2::Header::Purpose::kTell))
    return header->size;
  const auto length = (*file)->size();
  return length ? std::optional(*length) : std::nullopt;
}

// Returns an error if a new file in `folder` cannot get the owner in `status`. Called before the
// copy, which may take long.
Result<void> can_be_given_to(const Directory& folder, const struct stat& status) {
  const auto file = folder.open_unnamed(0600);
  // Without unnamed files, carry_over() finds out later.
  if (!file || retry(::fchown, file->get(), status.st_uid, status.st_gid) == 0) return {};
  return fail(
      Error::system(errno, fmt::format("{}: cannot create a file with the owner of the disk, "
                                       "{}:{}: run the command as this user, or as root",
                                       folder.path(), status.st_uid, status.st_gid)));
}

// Returns true if `errnum` means that the filesystem does not support the operation.
bool cannot(int errnum) {
  return errnum == EPERM || errnum == EOPNOTSUPP || errnum == ENOSYS || errnum == EINVAL ||
         errnum == EMLINK;
}

Result<void> check_suffix(const std::string& suffix) {
  if (!suffix.empty() && suffix.find('/') == std::string::npos) return {};
  return fail(Error::invalid(fmt::format("'{}' is not a valid suffix for the backup", suffix)));
}

}  // namespace

Result<void> DiskSwap::lock() {
  ASSIGN_OR_RETURN(old_, folder_.open_file(disk_, O_RDONLY));
  struct stat status {};
  if (retry(::fstat, old_.get(), &status) != 0) return fail(Error::system(errno, disk()));
  if (!S_ISREG(status.st_mode))
    return fail(Error::invalid(disk() + ": is not a regular file, so it cannot be replaced"));
  // NFS turns flock into a lock that needs a writable file, and some filesystems have no flock. The
  // locks of the image must suffice there.
  if (retry(::flock, old_.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
    return fail(Error::system(
        EBUSY, disk() + ": another virt-compact is replacing it: wait until it has ended"));
  if (retry(::faccessat, folder_.fd(), ".", W_OK | X_OK, 0) != 0)
    return fail(Error::system(errno, folder_.path() + ": write"));
  return can_be_given_to(folder_, status);
}

Result<DiskSwap> DiskSwap::plan(const std::string& path, std::optional<std::string> suffix) {
  ASSIGN_OR_RETURN(const std::string disk, without_links(path));
  ASSIGN_OR_RETURN(Directory folder, Directory::open(Directory::parent_of(disk)));
  DiskSwap swap(std::move(folder), Directory::name_of(disk));
  if (suffix) {
    RETURN_IF_ERROR(check_suffix(*suffix));
    swap.backup_ = swap.disk_ + *suffix;
  }
  RETURN_IF_ERROR(swap.lock());
  RETURN_IF_ERROR(swap.resolve_leftovers());
  if (!swap.backup_.empty() && swap.folder_.status(swap.backup_))
    return fail(Error::invalid(fmt::format(
        "{}: exists already: if it is the backup of an earlier run, and the guest works, remove it "
        "(virt-compact rollback restores it), or choose another suffix (--backup)",
        swap.backup())));
  // Counts the names after the leftovers are gone, since a leftover may be one of these names.
  struct stat status {};
  if (retry(::fstat, swap.old_.get(), &status) != 0) return fail(Error::system(errno, path));
  swap.other_names_ = static_cast<unsigned>(status.st_nlink - 1);
  return swap;
}

// Recovers from a run that was killed. There are three cases:
//
//     before step 1      .DISK.fresh is a useless copy: it is removed
//     between the steps  DISK.bak is DISK: the second name is removed
//     (exchanged)        .DISK.fresh is the old disk, older than DISK: it becomes DISK.bak
Result<void> DiskSwap::resolve_leftovers() {
  if (!backup_.empty() && folder_.holds(backup_, FileIdentity::of(old_.get()))) {
    RETURN_IF_ERROR(remove_and_flush(folder_, backup_));
    remarks_.push_back(fmt::format(
        "{}: an earlier run was stopped before the swap: this second name of the disk is removed",
        backup()));
  }
  const auto fresh = folder_.status(fresh_);
  return fresh ? resolve_fresh(*fresh) : Result<void>{};
}

// Returns true if the leftover is older than the disk: an exchange leaves the new file, which was
// created later, under the disk's name. Returns an error if the order is not certain, so that no
// file is lost.
Result<bool> DiskSwap::is_older_than_disk() const {
  struct statx fresh {};
  struct statx old {};
  if (retry(::statx, folder_.fd(), fresh_.c_str(), AT_SYMLINK_NOFOLLOW, STATX_BTIME, &fresh) != 0 ||
      retry(::statx, old_.get(), "", AT_EMPTY_PATH, STATX_BTIME, &old) != 0 ||
      (fresh.stx_mask & old.stx_mask & STATX_BTIME) == 0)
    return fail(Error::invalid(
        fmt::format("{}: was left by a run that was stopped: remove it if {} is the right disk",
                    this->fresh(), disk())));
  const auto born = [](const struct statx& it) {
    return std::pair(it.stx_btime.tv_sec, it.stx_btime.tv_nsec);
  };
  return born(fresh) < born(old);
}

Result<void> DiskSwap::resolve_fresh(const struct stat& status) {
  // The leftover is a copy of the disk, or is the old disk. Both have the disk's size.
  const auto size = disk_size(folder_, fresh_);
  if (!S_ISREG(status.st_mode) || !size || size != disk_size(folder_, disk_))
    return fail(Error::invalid(
        fresh() + ": exists, and was not made by this command: move it to another place"));
  ASSIGN_OR_RETURN(const bool older, is_older_than_disk());
  if (!older) {
    RETURN_IF_ERROR(remove_and_flush(folder_, fresh_));
    remarks_.push_back(fmt::format(
        "{}: an earlier run was stopped before the swap: its copy is removed", fresh()));
    return {};
  }
  if (backup_.empty())
    return fail(
        Error::invalid(fmt::format("{}: an earlier run was stopped during the swap: this is the "
                                   "old disk; remove it, or rename it to keep it",
                                   fresh())));
  RETURN_IF_ERROR(rename_and_flush(folder_, fresh_, backup_, RENAME_NOREPLACE));
  remarks_.push_back(fmt::format(
      "{}: an earlier run was stopped during the swap: this is the old disk", backup()));
  return {};
}

Result<void> DiskSwap::carry_over(Descriptor fresh) {
  fresh_file_ = std::move(fresh);
  if (!folder_.holds(fresh_, FileIdentity::of(fresh_file_.get()))) return not_ours(this->fresh());
  auto lost = copy_attributes(old_.get(), fresh_file_.get());
  if (!lost) return fail(std::move(lost).error().with_context(this->fresh()));
  if (retry(::fsync, fresh_file_.get()) != 0)
    return fail(Error::system(errno, this->fresh() + ": flush to disk"));
  for (const std::string& name : *lost)
    remarks_.push_back(
        fmt::format("{}: the attribute {} cannot be copied to the new disk", disk(), name));
  return {};
}

Result<void> DiskSwap::keep_old() {
  const auto old = FileIdentity::of(old_.get());
  if (!folder_.holds(disk_, old)) return not_ours(disk());
  if (backup_.empty()) return {};
  const auto linked = folder_.link(old_.get(), backup_);
  if (linked) return folder_.flush();
  if (!cannot(linked.error().errnum()))
    return fail(
        Error::system(linked.error().errnum(), backup() + ": keep the disk under this name"));
  if (!folder_.holds(fresh_, FileIdentity::of(fresh_file_.get()))) return not_ours(fresh());
  RETURN_IF_ERROR(folder_.rename(fresh_, disk_, RENAME_EXCHANGE));
  exchanged_ = true;
  if (!folder_.holds(disk_, FileIdentity::of(fresh_file_.get())) || !folder_.holds(fresh_, old))
    return not_ours(disk());
  return folder_.flush();
}

Result<void> DiskSwap::put_fresh() {
  if (exchanged_) return rename_and_flush(folder_, fresh_, backup_, RENAME_NOREPLACE);
  const auto fresh = FileIdentity::of(fresh_file_.get());
  if (!folder_.holds(fresh_, fresh)) return not_ours(this->fresh());
  if (!folder_.holds(disk_, FileIdentity::of(old_.get()))) return not_ours(disk());
  RETURN_IF_ERROR(folder_.rename(fresh_, disk_, 0));
  if (!folder_.holds(disk_, fresh)) return not_ours(disk());
  return folder_.flush();
}

Result<bool> DiskSwap::step() {
  if (!fresh_file_) return fail(Error::invalid(fresh() + ": there is nothing to swap yet"));
  if (steps_ == 0) {
    RETURN_IF_ERROR(keep_old());
  } else if (steps_ == 1) {
    RETURN_IF_ERROR(put_fresh());
  }
  return ++steps_ >= 2;
}

Result<void> DiskSwap::run() {
  while (true) {
    const auto done = step();
    if (done && *done) return {};
    if (done) continue;
    const bool swapped = folder_.holds(disk_, FileIdentity::of(fresh_file_.get()));
    give_up();
    if (swapped) return took_effect(Result<void>(fail(done.error())), state());
    return fail(Error(done.error()).with_context(state()));
  }
}

// Returns which file has which name now, for a message.
std::string DiskSwap::state() const {
  const auto old = FileIdentity::of(old_.get());
  if (folder_.holds(disk_, old)) return disk() + " is the old disk";
  std::string text = folder_.holds(disk_, FileIdentity::of(fresh_file_.get()))
                         ? disk() + " is the new disk"
                         : disk() + " is neither the old disk nor the new disk";
  if (folder_.holds(fresh_, old))
    text += fmt::format(", and {} is the old disk, which the next run renames to {}", fresh(),
                        backup());
  else if (!backup_.empty() && folder_.holds(backup_, old))
    text += fmt::format(", and {} is the old disk", backup());
  return text;
}

void DiskSwap::give_up() {
  const auto old = FileIdentity::of(old_.get());
  if (exchanged_ || !folder_.holds(disk_, old)) return;
  if (folder_.holds(fresh_, FileIdentity::of(fresh_file_.get()))) (void)folder_.remove(fresh_);
  if (!backup_.empty() && folder_.holds(backup_, old)) (void)folder_.remove(backup_);
}

namespace {

// Exchanges the disk and its backup.
class Exchange {
 public:
  Exchange(Directory folder, std::string disk, const std::string& suffix)
      : folder_(std::move(folder)), disk_(std::move(disk)), backup_(disk_ + suffix) {}

  Result<Rollback> run(bool remove, bool dry_run) {
    RETURN_IF_ERROR(open());
    if (dry_run) return Rollback{path(disk_), remove ? "" : path(backup_)};
    RETURN_IF_ERROR(exchange());
    if (remove) {
      // Removes only the file that was the disk.
      if (!folder_.holds(backup_, was_disk_->identity())) return not_ours(path(backup_));
      RETURN_IF_ERROR(took_effect(remove_and_flush(folder_, backup_),
                                  fmt::format("{} is the old disk again", path(disk_))));
    }
    return Rollback{path(disk_), remove ? "" : path(backup_)};
  }

 private:
  std::string path(const std::string& name) const { return folder_.path_to(name); }

  Result<void> open() {
    const auto status = folder_.status(backup_);
    if (!status) return fail(Error::system(errno, path(backup_) + ": the backup"));
    if (!S_ISREG(status->st_mode))
      return fail(Error::invalid(path(backup_) + ": is not a regular file"));
    ASSIGN_OR_RETURN(was_disk_, FileStorage::open_readonly_in(folder_, disk_));
    ASSIGN_OR_RETURN(was_backup_, FileStorage::open_readonly_in(folder_, backup_));
    if (was_disk_->identity() == was_backup_->identity())
      return fail(Error::invalid(fmt::format("{}: is the same file as {}: there was no swap",
                                             path(backup_), path(disk_))));
    // Locks both files until they have changed places.
    constexpr const char* kAdvice = "shut down the guest that uses it";
    RETURN_IF_ERROR(was_disk_->lock(ImageClaim::writing(), kAdvice));
    return was_backup_->lock(ImageClaim::writing(), kAdvice);
  }

  // Undoes the exchange on an error. Otherwise a user who tries again would exchange the files
  // back.
  Result<void> exchange() {
    if (!folder_.holds(disk_, was_disk_->identity())) return not_ours(path(disk_));
    if (!folder_.holds(backup_, was_backup_->identity())) return not_ours(path(backup_));
    const auto exchanged = folder_.rename(backup_, disk_, RENAME_EXCHANGE);
    if (!exchanged && cannot(exchanged.error().errnum())) return replace();
    if (!exchanged)
      return fail(Error::system(exchanged.error().errnum(),
                                fmt::format("{}: exchange with {}", path(disk_), path(backup_))));
    Result<void> done;
    if (!folder_.holds(disk_, was_backup_->identity()) ||
        !folder_.holds(backup_, was_disk_->identity()))
      done = not_ours(path(disk_));
    else
      done = folder_.flush();
    if (done) return {};
    if (folder_.rename(backup_, disk_, RENAME_EXCHANGE)) {
      (void)folder_.flush();
      return with_context(std::move(done),
                          path(disk_) + " is unchanged: the rollback was not done");
    }
    return took_effect(
        std::move(done),
        fmt::format("{} is the old disk again, and the replaced disk is {}: do not roll back again",
                    path(disk_), path(backup_)));
  }

  // For filesystems that cannot exchange names: first gives the current disk a third name.
  Result<void> replace() {
    const std::string kept = disk_ + ".rolled-back";
    RETURN_IF_ERROR(with_context(folder_.link(was_disk_->descriptor(), kept),
                                 "keep the disk under another name"));
    if (auto renamed = folder_.flush()) {
      // Unlike an exchange, this rename cannot be undone: it removes the file under `disk_`.
      if (!folder_.holds(disk_, was_disk_->identity())) return not_ours(path(disk_));
      if (!folder_.holds(backup_, was_backup_->identity())) {
        (void)folder_.remove(kept);
        return not_ours(path(backup_));
      }
      renamed = folder_.rename(backup_, disk_, 0);
      if (renamed) {
        backup_ = kept;
        if (!folder_.holds(disk_, was_backup_->identity())) return not_ours(path(disk_));
        return took_effect(folder_.flush(),
                           fmt::format("{} is the old disk again, and the replaced disk is {}",
                                       path(disk_), path(kept)));
      }
      (void)folder_.remove(kept);
      return renamed;
    } else {
      (void)folder_.remove(kept);
      return with_context(std::move(renamed),
                          path(disk_) + " is unchanged: the rollback was not done");
    }
  }

  Directory folder_;
  // Names in `folder_`.
  std::string disk_;
  std::string backup_;
  std::shared_ptr<FileStorage> was_disk_;
  std::shared_ptr<FileStorage> was_backup_;
};

}  // namespace

Result<Rollback> roll_back(const std::string& path, const std::string& suffix, bool remove,
                           bool dry_run) {
  ASSIGN_OR_RETURN(const std::string disk, without_links(path));
  RETURN_IF_ERROR(check_suffix(suffix));
  ASSIGN_OR_RETURN(Directory folder, Directory::open(Directory::parent_of(disk)));
  return Exchange(std::move(folder), Directory::name_of(disk), suffix).run(remove, dry_run);
}

}  // namespace vc::optimize
