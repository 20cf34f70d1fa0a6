// A destination file that gets its name only when it is complete and on disk.
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
#include "storage/file_size.h"
#include "storage/file_storage.h"
#include "storage/storage.h"

namespace vc {

// Until commit () the file has no name (O_TMPFILE), so that SIGKILL or a power loss leaves nothing
// behind.  On filesystems without O_TMPFILE it has a hidden name in the same folder; the destructor
// removes it.
//
// Large aligned writes bypass the page cache (O_DIRECT) where the filesystem supports it: the data
// is not read again soon, and a copy into the cache costs more than the write.
class OutputFile final : public Storage {
 public:
  // With `overwrite`, commit () replaces an existing regular file of that name; the file is
  // unchanged until then.  If the name is a symbolic link, its target is replaced.  Without
  // `overwrite`, an existing name of any kind is an error, now and in commit ().
  //
  // Locks a file to be replaced until commit (): it is an error if another process writes to it,
  // since that process would continue with a file that has no name, and no process can start to
  // write to it.
  //
  // Removes the files that dead runs have left in place of the same file.
  static Result<std::unique_ptr<OutputFile>> create(const std::string& path, bool overwrite);

  // Creates a file in `folder` that is never committed.  `name` is its name in messages.
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

  // Makes [to, to + length) share the blocks of `from` at `at` ("reflink"), without copying them.
  // Later writes to either file do not change the other. Extends the file if necessary. Fails where
  // the filesystem does not share blocks, and if a number is not a multiple of its block size.
  Result<void> clone(const FileStorage& from, HostOffset at, uint64_t length, HostOffset to);

  // Returns the block size of the filesystem, bytes.
  Result<uint64_t> block_size() const;

  // Reserves space in the filesystem for the first `length` bytes.  With `zeros`, also writes zeros
  // to all parts that are not written yet.
  Result<void> preallocate(uint64_t length, bool zeros);

  // Returns another path of the file, valid in this process and before commit ().
  std::string path_to_read() const;

  // Returns a descriptor of the same file, valid even if its name changes.
  Result<Descriptor> share() const;

  // Returns the descriptor of the file to be replaced; -1 if there is none or it is not readable.
  // This object owns it.
  int replaced() const { return replaced_fd_.get(); }

  // Flushes the file to disk, gives it its name, and flushes the name.  Call once.  The message of
  // an error that occurs after the file has its name says so.
  Result<void> commit();

  // Returns whether the file has its name, even if commit () has failed after that.
  bool has_name() const { return has_name_; }
  // Removes the name again, unless the file has replaced another one.
  void take_back();

  Result<FileSize> measure() const;

  // Returns the bytes that an unprivileged user can still write to the destination's filesystem.
  Result<uint64_t> free_space() const;

  // Returns the folder of the file.
  const std::string& folder() const { return folder_.path(); }

 private:
  OutputFile(std::string path, Directory folder, std::string target)
      : path_(std::move(path)), folder_(std::move(folder)), target_(std::move(target)) {}
  Result<void> find_target(bool overwrite);
  Result<void> follow_link(const struct stat& link);
  Result<void> check_replaced(const struct stat& status);
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
  Directory folder_;    // of the file to create or replace, with symbolic links followed
  std::string target_;  // the file's name in `folder_`
  // The file to be replaced; nullopt if there is none.
  struct Replaced {
    FileIdentity identity;
    mode_t mode;
    uid_t user;
    gid_t group;
  };
  std::optional<Replaced> replaced_;
  Descriptor replaced_fd_;  // the file to be replaced, open while it is locked, or none

  Descriptor fd_;
  std::atomic<uint64_t> cached_ = 0;  // bytes written through the cache since its last write-back
  Descriptor direct_fd_;              // the same file with O_DIRECT, or none
  mode_t mode_ = 0;                   // the mode of the named file, if it replaces none
  bool has_name_ = false;
  std::string hidden_;  // the temporary name, or empty
  SyncMemory sync_;
};

}  // namespace vc
