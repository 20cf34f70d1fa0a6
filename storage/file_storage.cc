#include "storage/file_storage.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/aligned_buffer.h"
#include "base/retry.h"
#include "base/rounding.h"
#include "storage/user_rights.h"

namespace vc {

namespace {

const char* kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISCHR(mode)) return "a character device";
  return "a special file";
}

// Without O_NONBLOCK, opening a FIFO would wait for a writer.  It has no effect on other files.
constexpr int kOpenFlags = O_CLOEXEC | O_NONBLOCK;

// The alignment that direct I/O requires; sufficient for all devices.
constexpr size_t kBlock = AlignedBuffer::kAlignment;

bool is_aligned(uint64_t at, std::span<const std::byte> bytes) {
  return at % kBlock == 0 && bytes.size() % kBlock == 0 &&
         reinterpret_cast<uintptr_t>(bytes.data()) % kBlock == 0;
}

}  // namespace

Result<std::shared_ptr<FileStorage>> FileStorage::open_readonly(const std::string& path) {
  return open(path, O_RDONLY);
}

Result<std::shared_ptr<FileStorage>> FileStorage::open_writable(const std::string& path) {
  return open(path, O_RDWR);
}

Result<std::shared_ptr<FileStorage>> FileStorage::open_exclusive_device(const std::string& path) {
  return open(path, O_RDWR | O_EXCL);
}

Result<std::shared_ptr<FileStorage>> FileStorage::open_readonly_in(const Directory& folder,
                                                                   const std::string& name) {
  ASSIGN_OR_RETURN(Descriptor file, folder.open_file(name, O_RDONLY));
  return take(folder.path_to(name), std::move(file), O_RDONLY);
}

Failure FileStorage::cannot_open(int errnum, const std::string& path) {
  if (errnum == ENXIO) return fail(Error::invalid(path + ": is a socket, not a disk image"));
  if (errnum == EISDIR) return fail(Error::invalid(path + ": is a directory, not a disk image"));
  return fail(Error::system(errnum, path));
}

Result<std::shared_ptr<FileStorage>> FileStorage::open(const std::string& path, int access) {
  Descriptor fd(retry(::open, path.c_str(), access | kOpenFlags));
  if (!fd) return cannot_open(errno, path);
  return take(path, std::move(fd), access);
}

Result<std::shared_ptr<FileStorage>> FileStorage::open_as(const UserRights& rights,
                                                          const std::string& path, bool writable) {
  const int access = writable ? O_RDWR : O_RDONLY;
  auto fd = vc::open_as(rights, path, access | kOpenFlags);
  if (!fd) return cannot_open(fd.error().errnum(), path);
  return take(path, std::move(*fd), access);
}

Result<std::shared_ptr<FileStorage>> FileStorage::take(std::string path, Descriptor fd,
                                                       int access) {
  std::shared_ptr<FileStorage> file(new FileStorage(std::move(path), std::move(fd)));
  struct stat status {};
  if (retry(::fstat, file->fd_.get(), &status) != 0) return fail(Error::system(errno, file->name_));
  file->writable_ = (access & O_ACCMODE) != O_RDONLY;
  file->owner_ = status.st_uid;
  file->is_block_device_ = S_ISBLK(status.st_mode);
  if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))
    return fail(Error::invalid(
        fmt::format("{}: is {}, not a disk image", file->name_, kind_of(status.st_mode))));
  file->identity_ = S_ISBLK(status.st_mode) ? Identity{status.st_rdev, 0}
                                            : Identity{status.st_dev, status.st_ino};
  return file;
}

Result<void> FileStorage::bypass_cache() {
  // Opens by descriptor: the name may refer to another file by now.
  const std::string self = path_of_descriptor(fd_.get());
  direct_fd_.reset(
      retry(::open, self.c_str(), (writable_ ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_DIRECT));
  if (direct_fd_) return {};
  if (errno == EINVAL)
    return fail(
        Error::unsupported(name_ + ": its filesystem cannot bypass the page cache (O_DIRECT)"));
  return fail(Error::system(errno, name_ + ": open without the page cache"));
}

Result<void> FileStorage::lock(ImageClaim claim, std::string_view advice) {
  return lock_.take(fd_.get(), name_, claim, advice);
}

Failure FileStorage::system_error(int errnum, const char* operation, uint64_t at) const {
  return fail(Error::system(errnum, fmt::format("{}: {} at {:#x}", name_, operation, at)));
}

Result<size_t> FileStorage::read(HostOffset at, std::span<std::byte> to) const {
  return direct_fd_ ? read_direct(at, to) : read_from(fd_.get(), at.value(), to);
}

// Reads the blocks around the range, through an aligned buffer unless `to` is aligned.
Result<size_t> FileStorage::read_direct(HostOffset at, std::span<std::byte> to) const {
  if (is_aligned(at.value(), to)) return read_from(direct_fd_.get(), at.value(), to);
  constexpr size_t kAtOnce = 1 << 20;
  AlignedBuffer blocks(std::min(kAtOnce, to.size() + 2 * kBlock) / kBlock * kBlock);
  size_t done = 0;
  while (done < to.size()) {
    const uint64_t position = at.value() + done;
    const size_t before = position % kBlock;
    const size_t wanted = std::min(to.size() - done, blocks.size() - before);
    const size_t length = round_up(before + wanted, kBlock);
    ASSIGN_OR_RETURN(const size_t got,
                     read_from(direct_fd_.get(), position - before, blocks.span().first(length)));
    const size_t useful = std::min(wanted, got > before ? got - before : 0);
    std::memcpy(to.data() + done, blocks.data() + before, useful);
    done += useful;
    if (useful < wanted) break;
  }
  return done;
}

Result<size_t> FileStorage::read_from(int fd, uint64_t at, std::span<std::byte> to) const {
  size_t done = 0;
  while (done < to.size()) {
    const uint64_t position = at + done;
    // A file is never longer than the largest off_t.
    if (position > static_cast<uint64_t>(INT64_MAX) - (to.size() - done)) break;
    // Only the end of the file follows the last whole block.
    if (fd == direct_fd_.get() && done % kBlock != 0) break;
    const ssize_t got =
        retry(::pread, fd, to.data() + done, to.size() - done, static_cast<off_t>(position));
    if (got < 0) return system_error(errno, "read", position);
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

Result<void> FileStorage::write(HostOffset at, std::span<const std::byte> from) {
  const int fd = direct_fd_ && is_aligned(at.value(), from) ? direct_fd_.get() : fd_.get();
  size_t done = 0;
  while (done < from.size()) {
    const uint64_t position = at.value() + done;
    const ssize_t put =
        retry(::pwrite, fd, from.data() + done, from.size() - done, static_cast<off_t>(position));
    if (put < 0) return system_error(errno, "write", position);
    done += static_cast<size_t>(put);
  }
  return {};
}

size_t FileStorage::read_cached(HostOffset at, std::span<std::byte> to) const {
  const iovec piece{to.data(), to.size()};
  const ssize_t got =
      retry(::preadv2, fd_.get(), &piece, 1, static_cast<off_t>(at.value()), RWF_NOWAIT);
  return got < 0 ? 0 : static_cast<size_t>(got);
}

void FileStorage::prefetch(HostOffset at, uint64_t length) const {
  (void)::posix_fadvise(fd_.get(), static_cast<off_t>(at.value()), static_cast<off_t>(length),
                        POSIX_FADV_WILLNEED);
}

Result<void> FileStorage::flush() {
  if (const int errnum = sync_.run(::fdatasync, fd_.get()))
    return fail(Error::system(errnum, name_ + ": flush"));
  return {};
}

Result<uint64_t> FileStorage::size() const {
  // lseek works for block devices, where stat returns 0.  No other code uses the file position.
  const off_t end = ::lseek(fd_.get(), 0, SEEK_END);
  if (end < 0) return fail(Error::system(errno, name_));
  return static_cast<uint64_t>(end);
}

Result<void> FileStorage::resize(uint64_t size) {
  if (is_block_device_) {
    ASSIGN_OR_RETURN(const uint64_t current, this->size());
    if (size <= current) return {};
    return system_error(ENOSPC, "extend", size);
  }
  if (retry(::ftruncate, fd_.get(), static_cast<off_t>(size)) != 0)
    return system_error(errno, "truncate or extend", size);
  return {};
}

Result<void> FileStorage::write_zeroes(HostOffset at, uint64_t length) {
  if (retry(::fallocate, fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
            static_cast<off_t>(at.value()), static_cast<off_t>(length)) == 0)
    return {};
  if (errno != EOPNOTSUPP) return system_error(errno, "zero", at.value());
  return Storage::write_zeroes(at, length);
}

void FileStorage::discard(HostOffset at, uint64_t length) {
  // A failure loses nothing but space.
  (void)retry(::fallocate, fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
              static_cast<off_t>(at.value()), static_cast<off_t>(length));
}

Result<Storage::Run> FileStorage::run_at(HostOffset at, uint64_t limit) const {
  const off_t begin = static_cast<off_t>(at.value());
  const off_t data = ::lseek(fd_.get(), begin, SEEK_DATA);
  if (data < 0) {
    // ENXIO: a hole up to the end.  Any other error: unknown.
    return Run{limit, errno != ENXIO};
  }
  if (data > begin) return Run{std::min<uint64_t>(limit, data - begin), false};
  const off_t hole = ::lseek(fd_.get(), begin, SEEK_HOLE);
  if (hole <= begin) return Run{limit, true};
  return Run{std::min<uint64_t>(limit, hole - begin), true};
}

Result<uint64_t> FileStorage::blocks() const {
  struct stat status {};
  if (retry(::fstat, fd_.get(), &status) != 0) return fail(Error::system(errno, name_));
  return S_ISBLK(status.st_mode) ? 0 : static_cast<uint64_t>(status.st_blocks) * 512;
}

}  // namespace vc
