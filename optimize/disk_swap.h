// Replaces a disk with a fresh image, and keeps the old one as a backup.
//
//     DISK          the disk
//     DISK.bak      the backup; the user chooses the suffix
//     .DISK.fresh   the fresh image before the swap: complete and flushed
//
// There are two atomic steps. The folder is flushed after each step.
//
//     1. DISK.bak becomes a second name (hard link) of the old file
//     2. .DISK.fresh is renamed to DISK
//
// At any moment, DISK exists, and is either the old file or the new one. On a filesystem without
// hard links, step 1 exchanges DISK and .DISK.fresh, and step 2 renames .DISK.fresh, which is then
// the old file, to DISK.bak.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "storage/descriptor.h"
#include "storage/directory.h"

namespace vc::optimize {

// Not thread-safe.
class DiskSwap {
 public:
  // Prepares a swap. `path` is a regular file or a symbolic link to one. The swap affects the file
  // that the link leads to, and puts the backup into the folder of that file. `suffix` of the
  // backup; nullopt: keep no backup. Returns an error if the backup's name exists, if the folder is
  // not writable, or if another process swaps this disk.
  //
  // Completes or undoes a swap that an earlier run left incomplete, and reports it in remarks().
  // This never changes DISK itself.
  static Result<DiskSwap> plan(const std::string& path, std::optional<std::string> suffix);

  std::string disk() const { return folder_.path_to(disk_); }    // without symbolic links
  std::string fresh() const { return folder_.path_to(fresh_); }  // path for the fresh image
  // Empty: no backup is kept.
  std::string backup() const { return backup_.empty() ? backup_ : folder_.path_to(backup_); }
  // Lines for the user.
  const std::vector<std::string>& remarks() const { return remarks_; }
  // Number of the file's other hard links. They keep the old content.
  unsigned other_names() const { return other_names_; }

  // Takes over the fresh image. `fresh` is its open file, since another file may have the name
  // fresh() by now. Copies owner, mode, ACLs and extended attributes (with the SELinux label) of
  // the disk, and flushes the file. Returns an error if the owner or the ACLs cannot be set. Other
  // attributes that cannot be set are reported in remarks().
  Result<void> carry_over(Descriptor fresh);

  // Takes the next step, after carry_over(). Returns true after the last step.
  Result<bool> step();
  // Takes all steps. After an error, calls give_up(); the error names the file that is the disk
  // now.
  Result<void> run();
  // After a failed step: undoes the steps and removes the fresh image, if DISK still is the old
  // file. Otherwise the next run completes the swap.
  void give_up();

 private:
  DiskSwap(Directory folder, std::string disk)
      : folder_(std::move(folder)), disk_(std::move(disk)), fresh_("." + disk_ + ".fresh") {}
  Result<void> lock();
  Result<void> resolve_leftovers();
  Result<void> resolve_fresh(const struct stat& status);
  Result<bool> is_older_than_disk() const;
  Result<void> keep_old();
  Result<void> put_fresh();
  std::string state() const;

  Directory folder_;
  // Names in `folder_`.
  std::string disk_;
  std::string fresh_;
  std::string backup_;
  std::vector<std::string> remarks_;
  unsigned other_names_ = 0;
  Descriptor old_;  // the old file, locked with flock against other runs
  Descriptor fresh_file_;
  unsigned steps_ = 0;      // steps taken
  bool exchanged_ = false;  // .DISK.fresh is the old file
};

struct Rollback {
  std::string disk;    // without symbolic links
  std::string backup;  // present name of the replaced disk; empty: it was removed
};

// Exchanges a disk and its backup, in one step. On a filesystem that cannot exchange names, first
// gives the current disk the name DISK.rolled-back. With `remove`, then removes the file that was
// the disk. Returns an error if either file is in use. After an error all is as before, or the
// error says which file has which name. With `dry_run`, only checks both files.
Result<Rollback> roll_back(const std::string& path, const std::string& suffix, bool remove,
                           bool dry_run = false);

}  // namespace vc::optimize
