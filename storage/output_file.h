// A destination file that appears under its name only when it is whole and on disk.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <atomic>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/sync_memory.h"
#include "storage/descriptor.h"
#include "storage/directory.h"
#include "storage/storage.h"

namespace qcow2 {

// Until commit () the file has no name at all (O_TMPFILE), so that not even SIGKILL or a loss of
// power leaves anything behind; on filesystems that cannot do that it has a hidden name in the same
// folder, which goes with the object.
//
// Large aligned writes bypass the page cache (O_DIRECT) where the filesystem can: the data is not
// looked at again soon, and copying it into the cache costs more than writing it.
class OutputFile final : public Storage {
 public:
  // `overwrite`: an existing regular file of that name is replaced by commit (), and is untouched
  // until then; through a symbolic link the file that it leads to is.  Without it an existing name,
  // of whatever kind, is an error, now and in commit ().
  //
  // A file to be replaced is locked until then: it is an error if somebody writes to it, who would
  // go on with a file that has no name any more, and nobody can begin to.
  //
  // Removes what runs that are dead have left of the same file.
  static Result<std::unique_ptr<OutputFile>> create(const std::string& path, bool overwrite);

  // A file in `folder` that is never committed.  `name` is what messages call it.
  static Result<std::unique_ptr<OutputFile>> create_scratch(const std::string& folder,
                                                            const std::string& name);

  ~OutputFile() override;

  const std::string& name() const override { return path_; }
  Result<size_t> read(HostOffset at, std::span<std::byte> to) const override;
  Result<void> write(HostOffset at, std::span<const std::byte> from) override;
  Result<void> write_vector(HostOffset at, std::span<iovec> pieces) override;
  Result<void> flush() override;
  Result<uint64_t> size() const override;
  Result<void> resize(uint64_t size) override;
  Result<Run> run_at(HostOffset at, uint64_t limit) const override;

  // Reserves room in the filesystem for the first `length` bytes.  With `zeros`, writes them to all
  // that nobody has written, too.
  Result<void> preallocate(uint64_t length, bool zeros);

  // Another way to the file, good in this process and before commit ().
  std::string path_to_read() const;

  // The same file, for as long as the descriptor is open, whatever becomes of its name.
  Result<Descriptor> share() const;

  // The file that is to be replaced; -1 if there is none, or it cannot be read.  Owned by this
  // object.
  int replaced() const { return replaced_fd_.get(); }

  // Puts the file on the disk, then under its name, and then the name on the disk.  Once.  An error
  // that comes when the file has its name says so.
  Result<void> commit();

  // Whether it has its name, even if commit () has failed then.
  bool has_name() const { return has_name_; }
  // Takes its name away again, if it has replaced nothing.
  void take_back();

  // What the file takes: its length and its blocks, bytes.
  struct Size {
    uint64_t length;
    uint64_t blocks;
  };
  Result<Size> measure() const;

  // Bytes that an unprivileged user can still write in the destination's filesystem.
  Result<uint64_t> room() const;

  // The folder that the file will be in.
  const std::string& folder() const { return folder_.path(); }

 private:
  OutputFile(std::string path, Directory folder, std::string target)
      : path_(std::move(path)), folder_(std::move(folder)), target_(std::move(target)) {}
  Result<void> find_target(bool overwrite);
  Result<void> follow_link(const struct stat& link);
  Result<void> look_at_replaced(const struct stat& status);
  Result<void> open_fresh();
  Result<void> open_unnamed();
  Result<void> hide_content();
  void open_direct();
  void start_write_back(uint64_t written);
  Result<void> set_owner_and_mode();
  Result<void> give_name();
  Result<void> rename_to_target();
  Result<void> replace();
  Failure error(int errnum, const char* operation) const;
  Result<void> explain(Result<void> result, const char* operation) const;

  std::string path_;    // as the user gave it
  Directory folder_;    // of the file that is made or replaced, with symbolic links followed
  std::string target_;  // its name there
  // Of the file that is to be replaced; nothing: there is none.
  struct Replaced {
    FileIdentity identity;
    mode_t mode;
    uid_t user;
    gid_t group;
  };
  std::optional<Replaced> replaced_;
  Descriptor replaced_fd_;  // that file, for as long as it is locked, or nothing

  Descriptor fd_;
  std::atomic<uint64_t> cached_ = 0;  // bytes written through the cache since its last write-back
  Descriptor direct_fd_;              // the same file with O_DIRECT, or nothing
  mode_t mode_ = 0;                   // that it gets with its name, if it replaces nothing
  bool has_name_ = false;
  std::string hidden_;  // the temporary name, if it has one
  SyncMemory sync_;
};

}  // namespace qcow2
