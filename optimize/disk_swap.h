// A fresh image takes the place of a disk, and the old one is kept beside it.
//
//     DISK          the disk; what takes its place later
//     DISK.bak      the backup; the suffix is the user's choice
//     .DISK.fresh   the fresh image until then: whole, and on the disk
//
// The steps, each of them atomic, with the folder flushed behind each:
//
//     1. DISK.bak becomes one more name of the old file (a hard link)
//     2. .DISK.fresh is renamed to DISK
//
// so that DISK is the old file or the new one at any moment, and never neither.  Where a filesystem
// has no hard links, 1. exchanges DISK and .DISK.fresh, and 2. renames .DISK.fresh, which is the
// old file now, to DISK.bak.
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
  // `path` is a regular file, or a symbolic link to one: then that file is meant, and the backup
  // lies beside it.  `suffix` of the backup; nothing: no backup is kept.  It is an error when
  // something of the backup's name is there, when the folder cannot be written, and when somebody
  // else swaps this disk.
  //
  // What an earlier run left half-done is brought to an end, which never touches DISK itself, and
  // told in remarks ().
  static Result<DiskSwap> plan(const std::string& path, std::optional<std::string> suffix);

  std::string disk() const { return folder_.path_to(disk_); }    // without symbolic links
  std::string fresh() const { return folder_.path_to(fresh_); }  // where to put the fresh image
  // Empty: none.
  std::string backup() const { return backup_.empty() ? backup_ : folder_.path_to(backup_); }
  // Lines for the user.
  const std::vector<std::string>& remarks() const { return remarks_; }
  // Names of the file besides DISK, which would keep the old one.
  unsigned other_names() const { return other_names_; }

  // Takes the fresh image, whose name is fresh (), as the file that it was written as: what has got
  // that name since is not touched.  Gives it the owner, mode, ACLs, extended attributes and with
  // them the SELinux label of the disk, and flushes it.  An error if its owner or its ACLs cannot
  // be had; other attributes that the system does not let us set are told in remarks ().
  Result<void> carry_over(Descriptor fresh);

  // The next step, after carry_over (); true: it was the last one.
  Result<bool> step();
  // All of them.  On an error gives up, and says which file is the disk now.
  Result<void> run();
  // After a step that failed: takes away what was done, and the fresh image, as long as the disk is
  // the old one.  What is left after an exchange the next run puts right.
  void give_up();

 private:
  DiskSwap(Directory folder, std::string disk)
      : folder_(std::move(folder)), disk_(std::move(disk)), fresh_("." + disk_ + ".fresh") {}
  Result<void> lock();
  Result<void> settle_leftovers();
  Result<void> settle_fresh(const struct stat& fresh);
  Result<bool> is_older_than_disk() const;
  Result<void> keep_old();
  Result<void> put_fresh();
  std::string state() const;

  Directory folder_;
  // Names in it.
  std::string disk_;
  std::string fresh_;
  std::string backup_;
  std::vector<std::string> remarks_;
  unsigned other_names_ = 0;
  Descriptor old_;  // the old file, locked with flock against others like us
  Descriptor fresh_file_;
  unsigned steps_ = 0;      // done
  bool exchanged_ = false;  // .DISK.fresh is the old file
};

struct Rollback {
  std::string disk;    // without symbolic links
  std::string backup;  // where what was DISK is kept now; empty: it was removed
};

// Puts the backup of a disk in its place again.  What was there is not lost: the two change places,
// in one step (or, where the filesystem cannot do that, what was there gets the name
// DISK.rolled-back first); with `remove` it is removed afterwards.  It is an error when either of
// them is in use.  An error leaves all as it was, or says what is where.
// With `dry_run` both are looked at, and stay.
Result<Rollback> roll_back(const std::string& path, const std::string& suffix, bool remove,
                           bool dry_run = false);

}  // namespace vc::optimize
