// The files of a live run, all in the folder of the disk.
//
//     DISK              the disk
//     DISK.bak          second name of the disk's file, and at the end the backup
//     .DISK.live1       first overlay, over DISK
//     .DISK.live        second overlay, over DISK.bak
//     .DISK.fresh       the fresh image
//     .DISK.journal     the journal
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "storage/directory.h"

namespace vc::live {

class LiveFolder {
 public:
  // `path` of a disk, without symbolic links in its last component. `backup`: name of the second
  // name, in the same folder.
  static Result<LiveFolder> open(const std::string& path, const std::string& backup);

  const Directory& directory() const { return directory_; }
  std::string path_to(const std::string& name) const { return directory_.path_to(name); }

  // Names in the folder.
  const std::string& disk() const { return disk_; }
  const std::string& backup() const { return backup_; }
  std::string overlay() const { return "." + disk_ + ".live1"; }
  std::string second_overlay() const { return "." + disk_ + ".live"; }
  std::string fresh() const { return "." + disk_ + ".fresh"; }
  std::string journal() const { return "." + disk_ + ".journal"; }
  void set_backup(std::string name) { backup_ = std::move(name); }

  // Returns true if `path`, as a domain's definition has it, is the name `name` in this folder.
  bool is(const std::string& path, const std::string& name) const;
  // Returns true if both names refer to the same file.
  bool are_same(const std::string& a, const std::string& b) const;
  bool has(const std::string& name) const { return directory_.status(name).has_value(); }
  // Returns the free space of the filesystem for this user, bytes.
  Result<uint64_t> free_space() const;

  // Removes a file that no process uses, if it exists. Returns an error if a process, for example
  // QEMU, has it open.
  Result<void> remove_unused(const std::string& name) const;
  // Gives the file `from` the second name `to`, and flushes the folder. Replaces `to` atomically.
  Result<void> link_over(const std::string& from, const std::string& to) const;

 private:
  LiveFolder(Directory directory, std::string disk, std::string backup)
      : directory_(std::move(directory)), disk_(std::move(disk)), backup_(std::move(backup)) {}

  Directory directory_;
  std::string disk_;
  std::string backup_;
};

}  // namespace vc::live
