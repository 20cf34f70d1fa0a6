// A regular file or a block device as storage.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <string_view>

#include "base/sync_memory.h"
#include "storage/descriptor.h"
#include "storage/directory.h"
#include "storage/image_lock.h"
#include "storage/storage.h"

namespace qcow2 {

struct UserRights;

class FileStorage final : public Storage {
 public:
  using Identity = FileIdentity;

  // Opens `path`, which must be a regular file or a block device, for reading alone.  Errors name
  // the path.
  static Result<std::shared_ptr<FileStorage>> open_readonly(const std::string& path);

  // The same, for reading and writing.
  static Result<std::shared_ptr<FileStorage>> open_writable(const std::string& path);

  // The file `name` in `folder` itself: a symbolic link is an error.
  static Result<std::shared_ptr<FileStorage>> open_readonly_in(const Directory& folder,
                                                               const std::string& name);

  // A block device that nothing else uses (a mounted filesystem, say), for writing.
  static Result<std::shared_ptr<FileStorage>> open_exclusive_device(const std::string& path);

  // The same, with the rights of another user: see qcow2::open_as.
  static Result<std::shared_ptr<FileStorage>> open_as(const UserRights& rights,
                                                      const std::string& path, bool writable);

  ~FileStorage() override = default;

  // Says to others, QEMU among them, what is done with the file, for as long as it is open or until
  // the next call; see ImageLock::take.  Nothing is said before the first call.  One thread at a
  // time.
  Result<void> lock(ImageClaim claim, std::string_view advice);

  // From now on what is read and written goes past the system's page cache, but for writes that do
  // not keep to blocks of 4096 bytes.  An error where the filesystem has no such way.  Before
  // anybody reads.
  Result<void> bypass_cache();

  const std::string& name() const override { return name_; }
  Result<size_t> read(HostOffset at, std::span<std::byte> to) const override;
  Result<void> write(HostOffset at, std::span<const std::byte> from) override;
  // Once it has failed it fails for good: the kernel tells of a failure once, and takes what was
  // lost for written from then on.
  Result<void> flush() override;
  Result<uint64_t> size() const override;
  Result<void> resize(uint64_t size) override;
  Result<void> write_zeroes(HostOffset at, uint64_t length) override;
  void discard(HostOffset at, uint64_t length) override;
  Result<Run> run_at(HostOffset at, uint64_t limit) const override;

  // For a block device: of the device, not of the node that names it.
  Identity identity() const { return identity_; }
  // Owned by this object.
  int descriptor() const { return fd_.get(); }
  bool is_block_device() const { return is_block_device_; }
  // The user that owned the file when it was opened.
  uid_t owner() const { return owner_; }
  // Bytes that the file takes on the disk; 0 for a block device.
  Result<uint64_t> blocks() const;

 private:
  FileStorage(std::string name, Descriptor fd) : name_(std::move(name)), fd_(std::move(fd)) {}
  static Result<std::shared_ptr<FileStorage>> open(const std::string& path, int access);
  static Failure cannot_open(int errnum, const std::string& path);
  static Result<std::shared_ptr<FileStorage>> take(std::string name, Descriptor fd, int access);
  Result<size_t> read_direct(HostOffset at, std::span<std::byte> to) const;
  Result<size_t> read_from(int fd, uint64_t at, std::span<std::byte> to) const;
  Failure system_error(int errnum, const char* operation, uint64_t at) const;

  std::string name_;
  Descriptor fd_;
  Descriptor direct_fd_;  // the same file with O_DIRECT, or nothing
  SyncMemory sync_;
  bool writable_ = false;
  ImageLock lock_;
  Identity identity_{};
  bool is_block_device_ = false;
  uid_t owner_ = 0;
};

}  // namespace qcow2
