#include "tool/options/confinement.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "base/retry.h"
#include "storage/descriptor.h"

namespace vc::tool {

namespace {

// Constants of linux/landlock.h, since the header may be older than the kernel.
constexpr uint64_t kTruncate = uint64_t{1} << 14;  // since version 3
constexpr uint64_t kAllNet = 3;                    // version 4: bind and connect, TCP
constexpr uint64_t kAllScopes = 3;                 // version 6: abstract sockets, signals
struct RulesetAttributes {
  uint64_t handled_access_fs;
  uint64_t handled_access_net;
  uint64_t scoped;
};

constexpr uint64_t kRead = LANDLOCK_ACCESS_FS_READ_FILE;
constexpr uint64_t kWrite = LANDLOCK_ACCESS_FS_WRITE_FILE | kTruncate;
constexpr uint64_t kFolder = kRead | kWrite | LANDLOCK_ACCESS_FS_READ_DIR |
                             LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG;
// Files for the conversion of dates.
constexpr const char* kTimeZone[] = {"/etc/localtime", "/usr/share/zoneinfo"};

// Returns the rights that a Landlock version supports. Other rights would be an error.
uint64_t known_rights(int version) {
  uint64_t rights = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1;
  if (version >= 2) rights |= LANDLOCK_ACCESS_FS_REFER;
  if (version >= 3) rights |= kTruncate;
  return rights;
}

class Landlock {
 public:
  // Returns 0 if the kernel has no Landlock.
  static int version() {
    const long version =
        ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
    return version > 0 ? static_cast<int>(version) : 0;
  }

  explicit Landlock(int version)
      : rights_(known_rights(version)), ruleset_(create(version, rights_)) {}

  // Follows symbolic links once: the rule then applies to the file, not to its name.
  Result<void> allow(const std::string& path, uint64_t rights) const {
    const Descriptor file(retry(::open, path.c_str(), O_PATH | O_CLOEXEC));
    if (!file) return fail(Error::system(errno, path));
    struct stat status {};
    if (::fstat(file.get(), &status) != 0) return fail(Error::system(errno, path));
    if (!S_ISDIR(status.st_mode)) rights &= kRead | kWrite;
    landlock_path_beneath_attr rule{};
    rule.allowed_access = rights & rights_;
    rule.parent_fd = file.get();
    if (::syscall(SYS_landlock_add_rule, ruleset_.get(), LANDLOCK_RULE_PATH_BENEATH, &rule, 0) != 0)
      return fail(Error::system(errno, path + ": Landlock"));
    return {};
  }

  Result<void> enforce() const {
    if (::syscall(SYS_landlock_restrict_self, ruleset_.get(), 0) != 0)
      return fail(Error::system(errno, "Landlock"));
    return {};
  }

 private:
  static int create(int version, uint64_t rights) {
    const RulesetAttributes attributes{rights, version >= 4 ? kAllNet : 0,
                                       version >= 6 ? kAllScopes : 0};
    const size_t size = version >= 6   ? sizeof attributes
                        : version >= 4 ? offsetof(RulesetAttributes, scoped)
                                       : offsetof(RulesetAttributes, handled_access_net);
    return static_cast<int>(::syscall(SYS_landlock_create_ruleset, &attributes, size, 0));
  }

  const uint64_t rights_;
  const Descriptor ruleset_;
};

Result<bool> restrict_files(const ConfinementPlan& plan) {
  const int version = Landlock::version();
  if (version == 0) return false;
  const Landlock landlock(version);
  for (const std::string& path : plan.readable) RETURN_IF_ERROR(landlock.allow(path, kRead));
  for (const std::string& path : plan.writable)
    RETURN_IF_ERROR(landlock.allow(path, kRead | kWrite));
  for (const std::string& path : plan.folders) RETURN_IF_ERROR(landlock.allow(path, kFolder));
  // Failure is ignored: a system without time zones uses UTC.
  for (const char* path : kTimeZone) (void)landlock.allow(path, kRead);
  RETURN_IF_ERROR(landlock.enforce());
  return true;
}

// Resolved by name: libseccomp knows which calls an architecture has. Excludes calls that change a
// file by path without opening it, which Landlock does not check (chmod, chown, truncate, setxattr,
// utimensat).
constexpr const char* kNeeded[] = {
    // Open files, and lookups of names.
    "read", "write", "pread64", "pwrite64", "readv", "writev", "preadv", "pwritev", "preadv2",
    "pwritev2", "lseek", "close", "close_range", "dup", "dup2", "dup3", "fcntl", "fstat", "stat",
    "lstat", "newfstatat", "statx", "fstatfs", "statfs", "access", "faccessat", "faccessat2",
    "readlink", "readlinkat", "getcwd", "getdents64", "fsync", "fdatasync", "sync_file_range",
    "ftruncate", "fallocate", "fadvise64", "copy_file_range", "sendfile", "flock", "fchmod",
    "fchown", "fgetxattr", "flistxattr", "fsetxattr", "fremovexattr", "getxattr", "listxattr",
    "link", "linkat", "unlink", "unlinkat", "rename", "renameat", "renameat2", "umask",
    "memfd_create", "mincore",
    // Memory.
    "brk", "munmap", "mremap", "madvise", "mlock", "munlock",
    // Threads, time, signals within the process.
    "futex", "futex_waitv", "set_robust_list", "get_robust_list", "rseq", "set_tid_address",
    "gettid", "getpid", "getppid", "exit", "exit_group", "sched_yield", "sched_getaffinity",
    "membarrier", "clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday",
    "time", "times", "getrusage", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack",
    "rt_sigtimedwait", "restart_syscall", "pause", "alarm", "setitimer", "poll", "ppoll", "select",
    "pselect6", "eventfd2", "pipe2", "pipe",
    // Queries of the system.
    "getuid", "geteuid", "getgid", "getegid", "getgroups", "getrlimit", "uname", "sysinfo",
    "getrandom", "getcpu", "capget"};

// ioctl requests for files, devices and the terminal. Excludes TIOCSTI, which injects input into a
// terminal.
constexpr unsigned long kRequests[] = {
    TCGETS,     TIOCGWINSZ, BLKGETSIZE64, BLKSSZGET,    BLKPBSZGET,      BLKROGET,     BLKDISCARD,
    BLKZEROOUT, FIGETBSZ,   FICLONE,      FICLONERANGE, FS_IOC_GETFLAGS, FS_IOC_FIEMAP};

class Filter {
 public:
  Filter() : context_(seccomp_init(SCMP_ACT_ERRNO(EPERM)), seccomp_release) {}

  bool usable() const { return context_ != nullptr; }

  void allow(const char* name) { add(SCMP_ACT_ALLOW, name, {}); }
  void allow(const char* name, const std::vector<scmp_arg_cmp>& arguments) {
    add(SCMP_ACT_ALLOW, name, arguments);
  }
  void refuse(const char* name, unsigned errnum) { add(SCMP_ACT_ERRNO(errnum), name, {}); }

  // Loads the filter. Returns 0, or the errno of the first failure.
  int load() {
    if (error_ == 0) error_ = -seccomp_attr_set(context_.get(), SCMP_FLTATR_CTL_TSYNC, 1);
    if (error_ == 0) error_ = -seccomp_load(context_.get());
    return error_;
  }

 private:
  void add(uint32_t action, const char* name, const std::vector<scmp_arg_cmp>& arguments) {
    const int number = seccomp_syscall_resolve_name(name);
    // The call does not exist on this architecture, or is newer than the library.
    if (number == __NR_SCMP_ERROR || error_ != 0) return;
    const int added = seccomp_rule_add_array(
        context_.get(), action, number, static_cast<unsigned>(arguments.size()), arguments.data());
    if (added != 0) error_ = -added;
  }

  std::unique_ptr<void, void (*)(scmp_filter_ctx)> context_;
  int error_ = 0;
};

scmp_arg_cmp equals(unsigned argument, uint64_t value) {
  return {argument, SCMP_CMP_EQ, value, 0};
}

scmp_arg_cmp masked(unsigned argument, uint64_t mask, uint64_t value) {
  return {argument, SCMP_CMP_MASKED_EQ, mask, value};
}

// `any_file`: permits opening any file, because Landlock decides or files must be written.
void allow_calls(Filter& filter, bool any_file) {
  for (const char* name : kNeeded) filter.allow(name);
  for (const unsigned long request : kRequests) filter.allow("ioctl", {equals(1, request)});
  if (any_file) {
    filter.allow("open");
    filter.allow("openat");
  } else {
    filter.allow("open", {masked(1, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY)});
    filter.allow("openat", {masked(2, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY)});
  }
  filter.allow("mmap", {masked(2, PROT_EXEC, 0)});
  filter.allow("mprotect", {masked(2, PROT_EXEC, 0)});
  // Threads, but no processes. seccomp cannot inspect the flags of clone3: the C library falls back
  // to clone.
  filter.allow("clone", {masked(0, CLONE_THREAD, CLONE_THREAD)});
  filter.refuse("clone3", ENOSYS);
  filter.allow("prlimit64", {equals(0, 0), equals(2, 0)});
  filter.allow("tgkill", {equals(0, static_cast<uint64_t>(::getpid()))});
}

Result<bool> restrict_calls(bool any_file) {
  Filter filter;
  if (!filter.usable()) return false;
  allow_calls(filter, any_file);
  const int errnum = filter.load();
  // The kernel has no support for filters.
  if (errnum == EINVAL || errnum == ENOSYS || errnum == EOPNOTSUPP) return false;
  if (errnum != 0) return fail(Error::system(errnum, "seccomp"));
  return true;
}

}  // namespace

Result<Confinement> confine(const ConfinementPlan& plan) {
  Confinement done;
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    return fail(Error::system(errno, "no_new_privs"));
  ASSIGN_OR_RETURN(done.landlock, restrict_files(plan));
  ASSIGN_OR_RETURN(done.seccomp, restrict_calls(done.landlock || !plan.folders.empty() ||
                                                !plan.writable.empty()));
  if (!done.landlock) done.missing = "Landlock";
  if (!done.seccomp) done.missing += done.missing.empty() ? "seccomp" : " and seccomp";
  return done;
}

}  // namespace vc::tool
