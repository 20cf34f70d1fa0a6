#include "qcow2/output_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "qcow2/aligned_buffer.h"
#include "qcow2/image_lock.h"

namespace qcow2 {

namespace {

constexpr uint64_t kAlignment = AlignedBuffer::kAlignment;
// Below this, the cache does better: a direct write waits for the disk, each for itself.
constexpr uint64_t kDirectAtLeast = 512 << 10;
// What goes through the cache is sent to the disk whenever it has come to this many bytes.  Else
// the kernel lets it pile up, makes writers wait when it is too much, and leaves the rest for the
// flush.
constexpr uint64_t kWriteBack = 16 << 20;

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// Another way to the file that `fd` is open on, even if it has no name.
std::string link_of(int fd) {
  return fmt::format("/proc/self/fd/{}", fd);
}

// A name that nobody has, beside `target`.
std::string hidden_name(const std::string& target) {
  static std::atomic<unsigned> number{0};
  const size_t slash = target.rfind('/');
  const size_t begin = slash == std::string::npos ? 0 : slash + 1;
  // The whole name must not get longer than filesystems take.
  return fmt::format("{}.{:.180}.virt-compact-{}-{}", target.substr(0, begin), target.substr(begin),
                     getpid(), number++);
}

// Whether `errnum` is how a filesystem says that it has no such thing.
bool has_none(int errnum) {
  return errnum == EPERM || errnum == EOPNOTSUPP || errnum == ENOSYS || errnum == EINVAL ||
         errnum == EMLINK;
}

}  // namespace

Failure OutputFile::error(int errnum, const char* operation) const {
  return fail(Error::system(errnum, fmt::format("{}: {}", path_, operation)));
}

Result<std::unique_ptr<OutputFile>> OutputFile::create(const std::string& path, bool overwrite) {
  std::unique_ptr<OutputFile> file(new OutputFile(path));
  RETURN_IF_ERROR(file->find_target(overwrite));
  RETURN_IF_ERROR(file->open_unnamed());
  RETURN_IF_ERROR(file->hide_content());
  file->open_direct();
  return file;
}

OutputFile::~OutputFile() {
  if (direct_fd_ >= 0) ::close(direct_fd_);
  if (fd_ >= 0) ::close(fd_);
  if (replaced_fd_ >= 0) ::close(replaced_fd_);
  if (!hidden_.empty()) ::unlink(hidden_.c_str());
}

Result<void> OutputFile::find_target(bool overwrite) {
  overwrite_ = overwrite;
  target_ = path_;
  folder_ = folder_of(path_);
  struct stat status {};
  if (::lstat(path_.c_str(), &status) != 0) {
    if (errno == ENOENT) return {};
    return error(errno, "create");
  }
  if (S_ISDIR(status.st_mode)) return fail(Error::invalid(path_ + ": is a directory"));
  if (!overwrite)
    return fail(Error::invalid(path_ + ": exists already: use --force to replace it"));
  if (S_ISLNK(status.st_mode)) {
    char* const resolved = ::realpath(path_.c_str(), nullptr);
    if (!resolved) return error(errno, "follow the symbolic link");
    target_ = resolved;
    std::free(resolved);
    folder_ = folder_of(target_);
    if (::stat(target_.c_str(), &status) != 0) return error(errno, "replace");
  }
  if (!S_ISREG(status.st_mode))
    return fail(Error::invalid(path_ + ": is no regular file: only those can be replaced"));
  replaced_ = Owner{status.st_mode & 07777, status.st_uid, status.st_gid};
  return lock_replaced();
}

Result<void> OutputFile::lock_replaced() {
  replaced_fd_ = ::open(target_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  // To replace a file one need not be allowed to read it, nor can it be locked then.
  if (replaced_fd_ < 0) return {};
  return ImageLock().take(replaced_fd_, path_, ImageClaim::replacing(),
                          "shut it down before the file is replaced");
}

Result<void> OutputFile::open_unnamed() {
  fd_ = ::open(folder_.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
  if (fd_ >= 0) {
    // Without /proc it could not be given a name when it is done.
    if (::access(link_of(fd_).c_str(), F_OK) == 0) return {};
    ::close(fd_);
    errno = EOPNOTSUPP;
  }
  if (errno == ENOTDIR || errno == ENOENT || errno == EACCES || errno == EROFS)
    return error(errno, "create");
  // The filesystem has no files without a name.
  hidden_ = hidden_name(target_);
  fd_ = ::open(hidden_.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0666);
  if (fd_ >= 0) return {};
  const int errnum = errno;
  hidden_.clear();
  return error(errnum, "create");
}

// A disk may be nobody else's to read; whether its copy is becomes known at the end.  Filesystems
// without modes do not care.
Result<void> OutputFile::hide_content() {
  struct stat status {};
  if (::fstat(fd_, &status) != 0) return error(errno, "look at");
  mode_ = status.st_mode & 07777;
  if (::fchmod(fd_, mode_ & 0700) != 0 && !has_none(errno)) return error(errno, "set the mode of");
  return {};
}

void OutputFile::open_direct() {
  direct_fd_ = ::open(link_of(fd_).c_str(), O_WRONLY | O_DIRECT | O_CLOEXEC);
}

Result<size_t> OutputFile::read(HostOffset at, std::span<std::byte> to) const {
  size_t done = 0;
  while (done < to.size()) {
    const ssize_t got =
        ::pread(fd_, to.data() + done, to.size() - done, static_cast<off_t>(at.value() + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return error(errno, "read");
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

Result<void> OutputFile::write(HostOffset at, std::span<const std::byte> from) {
  iovec piece{const_cast<std::byte*>(from.data()), from.size()};
  return write_vector(at, {&piece, 1});
}

Result<void> OutputFile::write_vector(HostOffset at, std::span<iovec> pieces) {
  uint64_t total = 0;
  bool aligned = at.value() % kAlignment == 0;
  for (const iovec& piece : pieces) {
    total += piece.iov_len;
    aligned = aligned && piece.iov_len % kAlignment == 0 &&
              reinterpret_cast<uintptr_t>(piece.iov_base) % kAlignment == 0;
  }
  int fd = aligned && total >= kDirectAtLeast && direct_fd_ >= 0 ? direct_fd_ : fd_;

  // IOV_MAX is 1024 on Linux.
  constexpr size_t kPiecesAtOnce = 1024;
  while (!pieces.empty()) {
    const auto some = pieces.first(std::min(pieces.size(), kPiecesAtOnce));
    const ssize_t put =
        ::pwritev(fd, some.data(), static_cast<int>(some.size()), static_cast<off_t>(at.value()));
    if (put < 0) {
      if (errno == EINTR) continue;
      // Opened, but not done: some filesystems (or a larger sector) say so only now.
      if (errno == EINVAL && fd == direct_fd_) {
        fd = fd_;
        continue;
      }
      return error(errno, "write");
    }
    at += static_cast<uint64_t>(put);
    if (fd == fd_) start_write_back(static_cast<uint64_t>(put));
    auto left = static_cast<size_t>(put);
    while (!pieces.empty() && left >= pieces.front().iov_len) {
      left -= pieces.front().iov_len;
      pieces = pieces.subspan(1);
    }
    if (left > 0) {
      iovec& piece = pieces.front();
      piece.iov_base = static_cast<std::byte*>(piece.iov_base) + left;
      piece.iov_len -= left;
      // The rest of a short write need not be aligned.
      if (left % kAlignment != 0) fd = fd_;
    }
  }
  return {};
}

// Does not wait, and is only advice: flush () says whether the bytes got there.
void OutputFile::start_write_back(uint64_t written) {
  if ((cached_ += written) < kWriteBack) return;
  cached_ = 0;
  ::sync_file_range(fd_, 0, 0, SYNC_FILE_RANGE_WRITE);
}

Result<void> OutputFile::flush() {
  if (::fsync(fd_) != 0) return error(errno, "flush to disk");
  return {};
}

Result<uint64_t> OutputFile::size() const {
  ASSIGN_OR_RETURN(const Size size, measure());
  return size.length;
}

Result<void> OutputFile::resize(uint64_t size) {
  if (::ftruncate(fd_, static_cast<off_t>(size)) != 0) return error(errno, "set the length");
  return {};
}

Result<void> OutputFile::preallocate(uint64_t length, bool zeros) {
  if (length == 0) return {};
  if (::fallocate(fd_, 0, 0, static_cast<off_t>(length)) != 0)
    return error(errno, "reserve room for");
  if (!zeros) return {};
  AlignedBuffer buffer(kDirectAtLeast);
  std::memset(buffer.data(), 0, buffer.size());
  // Reserved room that was not written is a hole to lseek.
  for (off_t at = 0; static_cast<uint64_t>(at) < length;) {
    const off_t begin = ::lseek(fd_, at, SEEK_HOLE);
    if (begin < 0 || static_cast<uint64_t>(begin) >= length) return {};
    const off_t data = ::lseek(fd_, begin, SEEK_DATA);
    const uint64_t end = data < 0 ? length : std::min(length, static_cast<uint64_t>(data));
    for (auto position = static_cast<uint64_t>(begin); position < end;) {
      const uint64_t part = std::min<uint64_t>(buffer.size(), end - position);
      RETURN_IF_ERROR(write(HostOffset(position), buffer.span().first(part)));
      position += part;
    }
    at = static_cast<off_t>(end);
  }
  return {};
}

Result<Storage::Run> OutputFile::run_at(HostOffset /*at*/, uint64_t limit) const {
  return Run{limit, true};
}

Result<OutputFile::Size> OutputFile::measure() const {
  struct stat status {};
  if (::fstat(fd_, &status) != 0) return error(errno, "look at");
  return Size{static_cast<uint64_t>(status.st_size), static_cast<uint64_t>(status.st_blocks) * 512};
}

Result<uint64_t> OutputFile::room() const {
  struct statvfs status {};
  if (::fstatvfs(fd_, &status) != 0) return error(errno, "look at the filesystem of");
  return static_cast<uint64_t>(status.f_bavail) * status.f_frsize;
}

Result<void> OutputFile::link_to(const std::string& name) {
  if (!hidden_.empty()) {
    // Neither replaces what has come there in the meantime.
    if (::link(hidden_.c_str(), name.c_str()) == 0)
      ::unlink(hidden_.c_str());
    else if (!has_none(errno))
      return error(errno, "give the name to");
    else
      RETURN_IF_ERROR(rename_to(name));
    hidden_.clear();
    return {};
  }
  if (::linkat(AT_FDCWD, link_of(fd_).c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) != 0)
    return error(errno, "give the name to");
  return {};
}

// Where there are no hard links: FAT, and many a network's and user's filesystem.
Result<void> OutputFile::rename_to(const std::string& name) {
  if (::renameat2(AT_FDCWD, hidden_.c_str(), AT_FDCWD, name.c_str(), RENAME_NOREPLACE) == 0)
    return {};
  if (!has_none(errno)) return error(errno, "give the name to");
  // Whoever comes after us finds the name taken, and it is empty for a moment only.
  const int fd = ::open(name.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
  if (fd < 0) return error(errno, "give the name to");
  ::close(fd);
  if (::rename(hidden_.c_str(), name.c_str()) == 0) return {};
  const int errnum = errno;
  ::unlink(name.c_str());
  return error(errnum, "give the name to");
}

std::string OutputFile::path_to_read() const {
  return link_of(fd_);
}

Result<void> OutputFile::commit() {
  if (replaced_) {
    // As far as we may: an ordinary user cannot give files away.
    if (::fchown(fd_, replaced_->user, replaced_->group) != 0 && errno != EPERM)
      return error(errno, "set the owner of");
    if (::fchmod(fd_, replaced_->mode) != 0) return error(errno, "set the mode of");
  } else if (::fchmod(fd_, mode_) != 0 && !has_none(errno)) {
    return error(errno, "set the mode of");
  }
  RETURN_IF_ERROR(flush());
  if (!replaced_) {
    RETURN_IF_ERROR(link_to(target_));
  } else {
    if (hidden_.empty()) {
      const std::string name = hidden_name(target_);
      RETURN_IF_ERROR(link_to(name));
      hidden_ = name;
    }
    if (::rename(hidden_.c_str(), target_.c_str()) != 0) return error(errno, "replace");
    hidden_.clear();
  }
  const int folder = ::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return error(errno, "open the folder of");
  const int synced = ::fsync(folder);
  const int errnum = errno;
  ::close(folder);
  // Some filesystems cannot, and need not.
  if (synced != 0 && errnum != EINVAL) return error(errnum, "flush the folder of");
  return {};
}

}  // namespace qcow2
