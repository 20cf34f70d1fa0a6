#include "storage/user_rights.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <system_error>
#include <thread>

#include "base/retry.h"

namespace vc {

namespace {

constexpr gid_t kNoGroup = 65534;

struct Account {
  std::string name;
  gid_t group;
};

std::optional<Account> account_of(uid_t user) {
  std::vector<char> buffer(16 << 10);
  passwd entry{};
  passwd* found = nullptr;
  while (::getpwuid_r(user, &entry, buffer.data(), buffer.size(), &found) == ERANGE &&
         buffer.size() < (1 << 20))
    buffer.resize(buffer.size() * 2);
  if (!found) return std::nullopt;
  return Account{found->pw_name, found->pw_gid};
}

// Returns the effective capabilities of the calling thread, the first 32.
uint32_t capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};
  if (::syscall(SYS_capget, &header, data) != 0) return 0;
  return data[0].effective;
}

constexpr uint32_t bit(unsigned capability) {
  return uint32_t{1} << capability;
}

// Affects the calling thread only, as raw system calls do; the functions of glibc change all
// threads.
int drop_capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  const __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};
  return ::syscall(SYS_capset, &header, none) == 0 ? 0 : errno;
}

int become(const UserRights& rights) {
  const uint32_t needed = bit(CAP_SETUID) | bit(CAP_SETGID);
  if ((capabilities() & needed) != needed) {
    // Without capabilities, a user other than root is an ordinary user, with no rights to drop.
    return ::geteuid() == 0 ? EPERM : drop_capabilities();
  }
#ifdef SYS_setgroups32
  constexpr long kSetGroups = SYS_setgroups32, kSetGroup = SYS_setfsgid32,
                 kSetUser = SYS_setfsuid32;
#else
  constexpr long kSetGroups = SYS_setgroups, kSetGroup = SYS_setfsgid, kSetUser = SYS_setfsuid;
#endif
  if (::syscall(kSetGroups, rights.groups.size(), rights.groups.data()) != 0) return errno;
  // These two calls report no errors: the second call returns the value that the first one has set.
  ::syscall(kSetGroup, rights.group);
  if (static_cast<gid_t>(::syscall(kSetGroup, rights.group)) != rights.group) return EPERM;
  ::syscall(kSetUser, rights.user);
  if (static_cast<uid_t>(::syscall(kSetUser, rights.user)) != rights.user) return EPERM;
  return drop_capabilities();
}

}  // namespace

UserRights rights_of(uid_t user) {
  UserRights rights{user, kNoGroup, {}};
  const auto account = account_of(user);
  if (!account) return rights;
  rights.group = account->group;
  int count = 64;
  rights.groups.resize(static_cast<size_t>(count));
  while (::getgrouplist(account->name.c_str(), rights.group, rights.groups.data(), &count) == -1 &&
         static_cast<size_t>(count) > rights.groups.size())
    rights.groups.resize(static_cast<size_t>(count));
  rights.groups.resize(static_cast<size_t>(count));
  return rights;
}

std::string describe_user(uid_t user) {
  const auto account = account_of(user);
  return account ? fmt::format("{} (uid {})", account->name, user) : fmt::format("uid {}", user);
}

bool has_more_rights_than(uid_t user) {
  if (user == 0 || user == ::geteuid()) return false;
  return ::geteuid() == 0 ||
         (capabilities() & (bit(CAP_DAC_OVERRIDE) | bit(CAP_DAC_READ_SEARCH))) != 0;
}

Result<Descriptor> open_as(const UserRights& rights, const std::string& path, int flags) {
  Descriptor fd;
  int errnum = 0;
  const auto work = [&] {
    errnum = become(rights);
    if (errnum != 0) return;
    fd.reset(retry(::open, path.c_str(), flags));
    if (!fd) errnum = errno;
  };
  // A thread with other credentials makes the process undumpable.  Then /proc/PID/fd is
  // inaccessible to its children, permanently.
  const bool dumpable = ::prctl(PR_GET_DUMPABLE) == 1;
  try {
    std::thread(work).join();
  } catch (const std::system_error& error) {
    errnum = error.code().value();
  }
  if (dumpable) (void)::prctl(PR_SET_DUMPABLE, 1);
  if (!fd) return fail(Error::system(errnum, "open"));
  return fd;
}

}  // namespace vc
