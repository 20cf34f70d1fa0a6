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

namespace vc {

struct UserRights;

class FileStorage final : public Storage {
 public:
  using Identity = FileIdentity;

  // Opens `path`, a regular file or a block device, read-only.  Errors name the path.
  static Result<std::shared_ptr<FileStorage>> open_readonly(const std::string& path);

  // Like open_readonly(), for reading and writing.
  static Result<std::shared_ptr<FileStorage>> open_writable(const std::string& path);

  // Opens the file `name` in `folder` itself: a symbolic link is an error.
  static Result<std::shared_ptr<FileStorage>> open_readonly_in(const Directory& folder,
                                                               const std::string& name);

  // Opens a block device for writing.  Fails if the device is in use (by a mounted filesystem, for
  // example).
  static Result<std::shared_ptr<FileStorage>> open_exclusive_device(const std::string& path);

  // Opens `path` with the rights of another user: see open_as.
  static Result<std::shared_ptr<FileStorage>> open_as(const UserRights& rights,
                                                      const std::string& path, bool writable);

  ~FileStorage() override = default;

  // Announces with QEMU's locks how this process uses the file, until the file is closed or the
  // next call; see ImageLock::take.  Before the first call there are no locks.  Not thread-safe.
  Result<void> lock(ImageClaim claim, std::string_view advice);

  // Makes later reads and writes bypass the page cache, except writes that are not aligned to
  // blocks of 4096 bytes.  Fails where the filesystem does not support that.  Call before the first
  // read.
  Result<void> bypass_cache();

  const std::string& name() const override { return name_; }
  Result<size_t> read(HostOffset at, std::span<std::byte> to) const override;
  // Reads what is in the page cache, without waiting. Returns the bytes read: 0 also after an
  // error, which read () reports.
  size_t read_cached(HostOffset at, std::span<std::byte> to) const;
  // Starts to read a range into the page cache, and does not wait.
  void prefetch(HostOffset at, uint64_t length) const;
  Result<void> write(HostOffset at, std::span<const std::byte> from) override;
  // After one failure all calls fail: the kernel reports a failure once, and then treats the lost
  // data as written.
  Result<void> flush() override;
  Result<uint64_t> size() const override;
  Result<void> resize(uint64_t size) override;
  Result<void> write_zeroes(HostOffset at, uint64_t length) override;
  void discard(HostOffset at, uint64_t length) override;
  Result<Run> run_at(HostOffset at, uint64_t limit) const override;

  // Returns the identity; for a block device that of the device, not of its node.
  Identity identity() const { return identity_; }
  // Returns the descriptor, which this object owns.
  int descriptor() const { return fd_.get(); }
  bool is_block_device() const { return is_block_device_; }
  // Returns the user that owned the file when it was opened.
  uid_t owner() const { return owner_; }
  // Returns the bytes that the file uses on disk; 0 for a block device.
  Result<uint64_t> blocks() const;

 private:
  FileStorage(std::string name, Descriptor fd) : name_(std::move(name)), fd_(std::move(fd)) {}
  static Result<std::shared_ptr<FileStorage>> open(const std::string& path, int access);
  static Failure cannot_open(int errnum, const std::string& path);
  static Result<std::shared_ptr<FileStorage>> take(std::string path, Descriptor fd, int access);
  Result<size_t> read_direct(HostOffset at, std::span<std::byte> to) const;
  Result<size_t> read_from(int fd, uint64_t at, std::span<std::byte> to) const;
  Failure system_error(int errnum, const char* operation, uint64_t at) const;

  std::string name_;
  Descriptor fd_;
  Descriptor direct_fd_;  // the same file with O_DIRECT, or none
  SyncMemory sync_;
  bool writable_ = false;
  ImageLock lock_;
  Identity identity_{};
  bool is_block_device_ = false;
  uid_t owner_ = 0;
};

}  // namespace vc
