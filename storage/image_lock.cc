#include "storage/image_lock.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>
#include <optional>

#include "base/retry.h"
#include "storage/lock_holder.h"

namespace vc {

namespace {

constexpr off_t kUsesByte = 100;
constexpr off_t kForbidsByte = 200;
constexpr unsigned kPermissions = 4;

struct flock one_byte(short type, off_t byte) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  return lock;  // l_pid must be 0
}

// Returns errno, or 0 on success.
int set_lock(int fd, short type, off_t byte) {
  struct flock lock = one_byte(type, byte);
  return retry(::fcntl, fd, F_OFD_SETLK, &lock) == 0 ? 0 : errno;
}

// Returns whether `errnum` says that the filesystem or the kernel does not support such locks.
bool means_no_locks(int errnum) {
  return errnum == EINVAL || errnum == ENOLCK || errnum == EOPNOTSUPP || errnum == ENOSYS;
}

// Calls `visit (byte)` for each byte of the set, until it returns a value other than 0.
template <typename Visit>
int each_byte(ImageClaim claim, Visit visit) {
  for (const auto& [set, first] :
       {std::pair(claim.uses, kUsesByte), std::pair(claim.forbids, kForbidsByte)})
    for (unsigned i = 0; i < kPermissions; ++i)
      if ((set >> i & 1) != 0)
        if (const int result = visit(first + static_cast<off_t>(i))) return result;
  return 0;
}

ImageClaim without(ImageClaim claim, ImageClaim other) {
  return {claim.uses & ~other.uses, claim.forbids & ~other.forbids};
}

int lock_all(int fd, ImageClaim claim) {
  return each_byte(claim, [&](off_t byte) { return set_lock(fd, F_RDLCK, byte); });
}

// Ignores errors: an unlock cannot fail in a way that the caller could handle.
void unlock_all(int fd, ImageClaim claim) {
  each_byte(claim, [&](off_t byte) {
    (void)set_lock(fd, F_UNLCK, byte);
    return 0;
  });
}

// A lock of another process that conflicts with ours.
struct Conflict {
  off_t byte;
  pid_t pid;  // 0: unknown
};

std::optional<Conflict> find_conflict(int fd, ImageClaim claim) {
  std::optional<Conflict> found;
  // What others forbid conflicts with our uses, and the reverse.  Tests the uses of others first:
  // they are more informative in a message.
  const auto test = [&](off_t byte) {
    struct flock lock = one_byte(F_WRLCK, byte);
    if (retry(::fcntl, fd, F_OFD_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) return 0;
    found = Conflict{byte, lock.l_pid > 0 ? lock.l_pid : 0};
    return 1;
  };
  each_byte({claim.forbids, claim.uses}, test);
  return found;
}

// Returns what the holder of the lock on `byte` does.
const char* deed(off_t byte) {
  switch (byte) {
    case kUsesByte:
      return "which reads it";
    case kUsesByte + 1:
    case kUsesByte + 2:
      return "which writes to it";
    case kUsesByte + 3:
      return "which may change its length";
    case kForbidsByte:
      return "which allows no other reader";
    default:
      return "which allows no other writer";
  }
}

Failure in_use(int fd, const std::string& name, Conflict conflict, std::string_view advice) {
  const std::string holder =
      find_lock_holder(fd, conflict.byte, conflict.pid)
          .value_or("a process that is not visible here (of another user, or on another machine)");
  return fail(Error::protocol(EBUSY, fmt::format("{}: is in use by {}, {}: {}", name, holder,
                                                 deed(conflict.byte), advice)));
}

// Returns the error for a byte that a program other than QEMU has locked exclusively.
Failure locked_out(int fd, const std::string& name, ImageClaim wanted, std::string_view advice) {
  Conflict conflict{kUsesByte, 0};
  each_byte(wanted, [&](off_t byte) {
    struct flock lock = one_byte(F_RDLCK, byte);
    if (retry(::fcntl, fd, F_OFD_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) return 0;
    conflict = {byte, lock.l_pid > 0 ? lock.l_pid : 0};
    return 1;
  });
  const std::string holder =
      find_lock_holder(fd, conflict.byte, conflict.pid).value_or("another process");
  return fail(Error::protocol(EBUSY, fmt::format("{}: is locked by {}: {}", name, holder, advice)));
}

}  // namespace

Result<void> ImageLock::take(int fd, const std::string& name, ImageClaim wanted,
                             std::string_view advice) {
  const ImageClaim gained = without(wanted, held_);
  if (const int errnum = lock_all(fd, gained)) {
    unlock_all(fd, gained);
    if (means_no_locks(errnum)) return {};
    if (errnum == EAGAIN || errnum == EACCES) return locked_out(fd, name, gained, advice);
    return fail(Error::system(errnum, name + ": lock"));
  }
  if (const auto conflict = find_conflict(fd, wanted)) {
    unlock_all(fd, gained);
    return in_use(fd, name, *conflict, advice);
  }
  unlock_all(fd, without(held_, wanted));
  held_ = wanted;
  return {};
}

}  // namespace vc
