#include "tests/catch.h"

#include "tool/options/confinement.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <thread>

#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using support::TempDirectory;
using tool::ConfinementPlan;

namespace {

constexpr int kWorked = 0;
constexpr int kLacking = 253;
constexpr int kNotConfined = 254;

// Returns the result of `what` (0, or an errno) in a process confined by `plan`.
int in_confinement(const ConfinementPlan& plan, const std::function<int()>& what) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const auto confined = tool::confine(plan);
    if (!confined) ::_exit(kNotConfined);
    if (!confined->missing.empty()) ::_exit(kLacking);
    ::_exit(what());
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  REQUIRE(WEXITSTATUS(status) != kNotConfined);
  return WEXITSTATUS(status);
}

int result(long returned) {
  return returned < 0 ? errno : kWorked;
}

int try_open(const std::string& path, int flags) {
  return result(::open(path.c_str(), flags | O_CLOEXEC, 0600));
}

}  // namespace

TEST_CASE("a confined process can open only its own files", "[confinement]") {
  const TempDirectory folder;
  const std::string image = folder / "image", other = folder / "other";
  support::write_file(image, std::string("image"));
  support::write_file(other, std::string("other"));
  const ConfinementPlan plan{{image}, {}, {}};
  if (in_confinement(plan, [] { return kWorked; }) == kLacking) {
    WARN("skipped: this kernel lacks Landlock or seccomp");
    return;
  }
  const auto confined = [&](const std::function<int()>& what) {
    return in_confinement(plan, what);
  };
  CHECK(confined([&] { return try_open(image, O_RDONLY); }) == kWorked);
  CHECK(confined([&] { return try_open(image, O_RDWR); }) == EACCES);
  CHECK(confined([&] { return try_open(other, O_RDONLY); }) == EACCES);
  CHECK(confined([&] { return try_open("/etc/passwd", O_RDONLY); }) == EACCES);
  CHECK(confined([&] { return try_open("/proc/self/mem", O_RDWR); }) == EACCES);
  CHECK(confined([&] { return try_open(folder / "new", O_WRONLY | O_CREAT); }) == EACCES);
  CHECK(confined([&] { return result(::unlink(other.c_str())); }) == EACCES);
  CHECK(confined([&] { return result(::rename(other.c_str(), image.c_str())); }) == EACCES);
  CHECK(confined([&] { return result(::chmod(other.c_str(), 0666)); }) == EPERM);
  CHECK(confined([&] { return result(::truncate(other.c_str(), 0)); }) == EPERM);
}

TEST_CASE("a confined process cannot start programs, open sockets or gain rights",
          "[confinement]") {
  const ConfinementPlan plan;
  if (in_confinement(plan, [] { return kWorked; }) == kLacking) {
    WARN("skipped: this kernel lacks Landlock or seccomp");
    return;
  }
  const auto confined = [&](const std::function<int()>& what) {
    return in_confinement(plan, what);
  };
  CHECK(confined([] { return result(::execl("/bin/true", "true", nullptr)); }) == EPERM);
  CHECK(confined([] { return result(::fork()); }) == EPERM);
  CHECK(confined([] { return result(::socket(AF_UNIX, SOCK_STREAM, 0)); }) == EPERM);
  CHECK(confined([] { return result(::socket(AF_INET, SOCK_STREAM, 0)); }) == EPERM);
  CHECK(confined([] { return result(::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr)); }) == EPERM);
  CHECK(confined([] { return result(::kill(::getppid(), 0)); }) == EPERM);
  CHECK(confined([] { return result(::setuid(0)); }) == EPERM);
  CHECK(confined([] { return result(::syscall(SYS_mount, "a", "/", "tmpfs", 0, nullptr)); }) ==
        EPERM);
  CHECK(confined([] {
          void* const at = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
          return at == MAP_FAILED ? errno : kWorked;
        }) == EPERM);
  CHECK(confined([] {
          char letter = 'x';
          return result(::ioctl(0, TIOCSTI, &letter));
        }) == EPERM);
  // Threads can be started, and are confined, too.
  CHECK(confined([] {
          int errnum = kNotConfined;
          std::thread([&] { errnum = try_open("/etc/passwd", O_RDONLY); }).join();
          return errnum;
        }) == EACCES);
}

TEST_CASE("a confined process can create files only in its folder", "[confinement]") {
  const TempDirectory folder;
  const TempDirectory elsewhere;
  const ConfinementPlan plan{{}, {}, {folder.path()}};
  if (in_confinement(plan, [] { return kWorked; }) == kLacking) {
    WARN("skipped: this kernel lacks Landlock or seccomp");
    return;
  }
  const auto make = [](const std::string& path) {
    return [path] { return try_open(path, O_RDWR | O_CREAT | O_EXCL); };
  };
  CHECK(in_confinement(plan, make(folder / "new")) == kWorked);
  CHECK(in_confinement(plan, make(elsewhere / "new")) == EACCES);
  CHECK(in_confinement(plan, [&] {
          return result(::symlink("/etc/passwd", (folder / "link").c_str()));
        }) == EPERM);
}
