#include "storage/output_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/aligned_buffer.h"
#include "base/retry.h"
#include "base/took_effect.h"
#include "storage/hidden_file.h"
#include "storage/image_lock.h"

namespace vc {

namespace {

constexpr uint64_t kAlignment = AlignedBuffer::kAlignment;
// Smaller writes are faster through the cache: each direct write waits for the disk.
constexpr uint64_t kDirectAtLeast = 512 << 10;
// Starts a write-back of cached data after this many bytes.  Otherwise the kernel accumulates them,
// blocks writers when there are too many, and leaves the rest to the flush.
constexpr uint64_t kWriteBack = 16 << 20;

// Returns whether `errnum` says that the filesystem does not support an operation.
bool has_none(int errnum) {
  return errnum == EPERM || errnum == EOPNOTSUPP || errnum == ENOSYS || errnum == EINVAL ||
         errnum == EMLINK;
}

}  // namespace

Failure OutputFile::error(int errnum, const char* operation) const {
  return fail(Error::system(errnum, fmt::format("{}: {}", path_, operation)));
}

Result<void> OutputFile::explain(Result<void> result, const char* operation) const {
  if (result) return result;
  return error(result.error().errnum(), operation);
}

Result<std::unique_ptr<OutputFile>> OutputFile::create(const std::string& path, bool overwrite) {
  const std::string name = Directory::name_of(path);
  auto folder = Directory::open(Directory::parent_of(path));
  if (!folder) return fail(Error::system(folder.error().errnum(), path + ": create"));
  if (name.empty()) return fail(Error::invalid(path + ": is a directory"));
  std::unique_ptr<OutputFile> file(new OutputFile(path, std::move(*folder), name));
  RETURN_IF_ERROR(file->find_target(overwrite));
  remove_dead_files(file->folder_, file->target_);
  RETURN_IF_ERROR(file->open_fresh());
  return file;
}

Result<std::unique_ptr<OutputFile>> OutputFile::create_scratch(const std::string& folder,
                                                               const std::string& name) {
  ASSIGN_OR_RETURN(Directory opened, Directory::open(folder));
  // The compiler chooses the order in which arguments are evaluated.
  std::string path = opened.path_to(name);
  std::unique_ptr<OutputFile> file(new OutputFile(std::move(path), std::move(opened), name));
  remove_dead_files(file->folder_, file->target_);
  RETURN_IF_ERROR(file->open_fresh());
  return file;
}

OutputFile::~OutputFile() {
  if (!hidden_.empty() && folder_.holds(hidden_, FileIdentity::of(fd_.get())))
    (void)folder_.remove(hidden_);
}

Result<void> OutputFile::find_target(bool overwrite) {
  struct stat status {};
  if (retry(::fstatat, folder_.fd(), target_.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return {};
    return error(errno, "create");
  }
  if (S_ISDIR(status.st_mode)) return fail(Error::invalid(path_ + ": is a directory"));
  if (!overwrite)
    return fail(Error::invalid(path_ + ": exists already: use --force to replace it"));
  if (S_ISLNK(status.st_mode)) return follow_link(status);
  return check_replaced(status);
}

// In a sticky folder that all users may write to, follows a link only if this user or the owner of
// the folder owns it, as the kernel does with fs.protected_symlinks=1.
Result<void> OutputFile::follow_link(const struct stat& link) {
  struct stat folder {};
  if (retry(::fstat, folder_.fd(), &folder) != 0) return error(errno, "inspect the folder of");
  if ((folder.st_mode & S_ISVTX) != 0 && (folder.st_mode & S_IWOTH) != 0 &&
      link.st_uid != ::geteuid() && link.st_uid != folder.st_uid)
    return fail(Error::invalid(
        path_ +
        ": is a symbolic link of another user, in a folder that all users may write to: it is "
        "not followed"));
  const std::unique_ptr<char, void (*)(void*)> real(::realpath(path_.c_str(), nullptr), std::free);
  if (!real) return error(errno, "follow the symbolic link");
  if (!folder_.holds(target_, FileIdentity::of(link)))
    return fail(Error::invalid(path_ + ": another process has just replaced the link"));
  const std::string resolved = real.get();
  ASSIGN_OR_RETURN(folder_, Directory::open(Directory::parent_of(resolved)));
  target_ = Directory::name_of(resolved);
  const auto status = folder_.status(target_);
  if (!status) return error(errno, "replace");
  return check_replaced(*status);
}

Result<void> OutputFile::check_replaced(const struct stat& status) {
  if (!S_ISREG(status.st_mode))
    return fail(
        Error::invalid(path_ + ": is not a regular file: only a regular file can be replaced"));
  replaced_ =
      Replaced{FileIdentity::of(status), status.st_mode & 07777, status.st_uid, status.st_gid};
  auto file = folder_.open_file(target_, O_RDONLY);
  // A file can be replaced without read permission; it cannot be locked then.
  if (!file) return {};
  replaced_fd_ = std::move(*file);
  if (FileIdentity::of(replaced_fd_.get()) != replaced_->identity)
    return fail(Error::invalid(path_ + ": another process has just replaced the file"));
  return ImageLock().take(replaced_fd_.get(), path_, ImageClaim::replacing(),
                          "shut it down before the file is replaced");
}

Result<void> OutputFile::open_fresh() {
  RETURN_IF_ERROR(open_unnamed());
  RETURN_IF_ERROR(hide_content());
  open_direct();
  return {};
}

Result<void> OutputFile::open_unnamed() {
  auto unnamed = folder_.open_unnamed(0666);
  int errnum = EOPNOTSUPP;
  if (!unnamed) {
    errnum = unnamed.error().errnum();
  } else if (::access(path_of_descriptor(unnamed->get()).c_str(), F_OK) == 0) {
    // Without /proc the file could not get a name later.
    fd_ = std::move(*unnamed);
    (void)mark_alive(fd_.get());
    return {};
  }
  if (errnum == ENOTDIR || errnum == ENOENT || errnum == EACCES || errnum == EROFS)
    return error(errnum, "create");
  // The filesystem does not support files without a name.
  auto hidden = create_hidden(folder_, target_);
  if (!hidden) return error(hidden.error().errnum(), "create");
  fd_ = std::move(hidden->file);
  hidden_ = std::move(hidden->name);
  return {};
}

// Removes the permissions of other users until commit (), since the disk may be private.
// Filesystems without modes are no error.
Result<void> OutputFile::hide_content() {
  struct stat status {};
  if (retry(::fstat, fd_.get(), &status) != 0) return error(errno, "inspect");
  mode_ = status.st_mode & 07777;
  if (retry(::fchmod, fd_.get(), mode_ & 0700) != 0 && !has_none(errno))
    return error(errno, "set the mode of");
  return {};
}

void OutputFile::open_direct() {
  direct_fd_.reset(
      retry(::open, path_of_descriptor(fd_.get()).c_str(), O_WRONLY | O_DIRECT | O_CLOEXEC));
}

Result<size_t> OutputFile::read(HostOffset at, std::span<std::byte> to) const {
  size_t done = 0;
  while (done < to.size()) {
    const ssize_t got = retry(::pread, fd_.get(), to.data() + done, to.size() - done,
                              static_cast<off_t>(at.value() + done));
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
  int fd = aligned && total >= kDirectAtLeast && direct_fd_ ? direct_fd_.get() : fd_.get();

  // IOV_MAX is 1024 on Linux.
  constexpr size_t kPiecesAtOnce = 1024;
  while (!pieces.empty()) {
    const auto some = pieces.first(std::min(pieces.size(), kPiecesAtOnce));
    const ssize_t put = retry(::pwritev, fd, some.data(), static_cast<int>(some.size()),
                              static_cast<off_t>(at.value()));
    if (put < 0) {
      // Some filesystems (or devices with larger sectors) accept O_DIRECT in open and reject it
      // only here.
      if (errno == EINVAL && fd == direct_fd_.get()) {
        fd = fd_.get();
        continue;
      }
      return error(errno, "write");
    }
    at += static_cast<uint64_t>(put);
    if (fd == fd_.get()) start_write_back(static_cast<uint64_t>(put));
    auto left = static_cast<size_t>(put);
    while (!pieces.empty() && left >= pieces.front().iov_len) {
      left -= pieces.front().iov_len;
      pieces = pieces.subspan(1);
    }
    if (left > 0) {
      iovec& piece = pieces.front();
      piece.iov_base = static_cast<std::byte*>(piece.iov_base) + left;
      piece.iov_len -= left;
      // The rest after a short write may be unaligned.
      if (left % kAlignment != 0) fd = fd_.get();
    }
  }
  return {};
}

// Does not wait.  Errors do not matter here: flush () reports them.
void OutputFile::start_write_back(uint64_t written) {
  cached_ += written;
  if (cached_ < kWriteBack) return;
  cached_ = 0;
  ::sync_file_range(fd_.get(), 0, 0, SYNC_FILE_RANGE_WRITE);
}

Result<void> OutputFile::flush() {
  if (const int errnum = sync_.run(::fsync, fd_.get())) return error(errnum, "flush to disk");
  return {};
}

Result<uint64_t> OutputFile::size() const {
  ASSIGN_OR_RETURN(const FileSize size, measure());
  return size.length;
}

Result<void> OutputFile::resize(uint64_t size) {
  if (retry(::ftruncate, fd_.get(), static_cast<off_t>(size)) != 0)
    return error(errno, "set the length");
  return {};
}

Result<void> OutputFile::clone(const FileStorage& from, HostOffset at, uint64_t length,
                               HostOffset to) {
  file_clone_range range{};
  range.src_fd = from.descriptor();
  range.src_offset = at.value();
  range.src_length = length;
  range.dest_offset = to.value();
  if (retry(::ioctl, fd_.get(), FICLONERANGE, &range) == 0) return {};
  return fail(Error::system(
      errno, fmt::format("{}: failed to clone {} at {:#x}", path_, from.name(), at.value())));
}

Result<uint64_t> OutputFile::block_size() const {
  struct statvfs status {};
  if (retry(::fstatvfs, fd_.get(), &status) != 0) return error(errno, "inspect the filesystem of");
  return static_cast<uint64_t>(status.f_bsize);
}

Result<void> OutputFile::preallocate(uint64_t length, bool zeros) {
  if (length == 0) return {};
  if (retry(::fallocate, fd_.get(), 0, 0, static_cast<off_t>(length)) != 0)
    return error(errno, "reserve space for");
  if (!zeros) return {};
  AlignedBuffer buffer(kDirectAtLeast);
  std::memset(buffer.data(), 0, buffer.size());
  // lseek reports reserved, unwritten space as a hole.
  for (off_t at = 0; static_cast<uint64_t>(at) < length;) {
    const off_t begin = ::lseek(fd_.get(), at, SEEK_HOLE);
    if (begin < 0 || static_cast<uint64_t>(begin) >= length) return {};
    const off_t data = ::lseek(fd_.get(), begin, SEEK_DATA);
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

Result<FileSize> OutputFile::measure() const {
  struct stat status {};
  if (retry(::fstat, fd_.get(), &status) != 0) return error(errno, "inspect");
  return FileSize::of(status);
}

Result<uint64_t> OutputFile::free_space() const {
  struct statvfs status {};
  if (retry(::fstatvfs, fd_.get(), &status) != 0) return error(errno, "inspect the filesystem of");
  return static_cast<uint64_t>(status.f_bavail) * status.f_frsize;
}

std::string OutputFile::path_to_read() const {
  return path_of_descriptor(fd_.get());
}

Result<Descriptor> OutputFile::share() const {
  Descriptor shared(retry(::fcntl, fd_.get(), F_DUPFD_CLOEXEC, 0));
  if (!shared) return error(errno, "open again");
  return shared;
}

Result<void> OutputFile::set_owner_and_mode() {
  if (!replaced_) {
    if (retry(::fchmod, fd_.get(), mode_) == 0 || has_none(errno)) return {};
    return error(errno, "set the mode of");
  }
  // Ignores EPERM: an ordinary user cannot give files away.
  if (retry(::fchown, fd_.get(), replaced_->user, replaced_->group) != 0 && errno != EPERM)
    return error(errno, "set the owner of");
  if (retry(::fchmod, fd_.get(), replaced_->mode) != 0) return error(errno, "set the mode of");
  return {};
}

// Neither way replaces a file that was created meanwhile.
Result<void> OutputFile::give_name() {
  if (auto linked = folder_.link(fd_.get(), target_); linked) {
    if (!hidden_.empty()) (void)folder_.remove(std::exchange(hidden_, {}));
    return {};
  } else if (hidden_.empty() || !has_none(linked.error().errnum())) {
    return explain(std::move(linked), "give the name to");
  }
  return rename_to_target();
}

// For filesystems without hard links: FAT, and many network and user-space filesystems.
Result<void> OutputFile::rename_to_target() {
  auto renamed = folder_.rename(hidden_, target_, RENAME_NOREPLACE);
  if (!renamed && has_none(renamed.error().errnum())) {
    // Another process that comes later finds the name in use.  The file is empty only for a moment.
    if (auto taken = folder_.open_file(target_, O_CREAT | O_EXCL | O_WRONLY, 0600); !taken)
      return error(taken.error().errnum(), "give the name to");
    renamed = folder_.rename(hidden_, target_, 0);
    if (!renamed) (void)folder_.remove(target_);
  }
  if (renamed) hidden_.clear();
  return explain(std::move(renamed), "give the name to");
}

Result<void> OutputFile::replace() {
  if (hidden_.empty()) {
    const std::string name = hidden_name(target_);
    RETURN_IF_ERROR(explain(folder_.link(fd_.get(), name), "give the name to"));
    hidden_ = name;
  }
  if (folder_.status(target_) && !folder_.holds(target_, replaced_->identity))
    return fail(
        Error::invalid(path_ + ": another process has created a file here: nothing is replaced"));
  RETURN_IF_ERROR(explain(folder_.rename(hidden_, target_, 0), "replace"));
  hidden_.clear();
  return {};
}

void OutputFile::take_back() {
  if (has_name_ && !replaced_ && folder_.holds(target_, FileIdentity::of(fd_.get())))
    (void)folder_.remove(target_);
}

Result<void> OutputFile::commit() {
  RETURN_IF_ERROR(set_owner_and_mode());
  RETURN_IF_ERROR(flush());
  RETURN_IF_ERROR(replaced_ ? replace() : give_name());
  has_name_ = true;
  // rename() uses the name, which every process with write access to the folder can change.
  if (!folder_.holds(target_, FileIdentity::of(fd_.get())))
    return fail(
        Error::invalid(path_ + ": another process has replaced this file: the new file is lost"));
  return took_effect(folder_.flush(), path_ + " is complete and has its name");
}

}  // namespace vc
