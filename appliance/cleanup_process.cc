#include "appliance/cleanup_process.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "base/retry.h"

namespace vc::appliance {

namespace {

// libguestfs's name of the socket for its daemon.
constexpr std::string_view kSocket = "/guestfsd.sock";

constexpr const char* kScript =
    "while IFS= read -r folder; do set -- \"$@\" \"$folder\"; done; rm -rf -- \"$@\"";

// Runs in the child. Must be async-signal-safe.
[[noreturn]] void become_cleanup_process(int names, int null) {
  ::setsid();
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  if (::dup2(names, 0) == 0 && ::dup2(null, 1) == 1 && ::dup2(null, 2) == 2)
    ::execl("/bin/sh", "sh", "-c", kScript, "virt-compact-cleanup", nullptr);
  ::_exit(127);
}

// Returns the path to which a socket is bound. Empty for anything else.
std::string socket_name(int fd) {
  sockaddr_un address{};
  socklen_t length = sizeof address;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0 ||
      address.sun_family != AF_UNIX || length <= offsetof(sockaddr_un, sun_path))
    return {};
  const size_t most = std::min<size_t>(length, sizeof address) - offsetof(sockaddr_un, sun_path);
  return std::string(address.sun_path, ::strnlen(address.sun_path, most));
}

}  // namespace

Result<std::unique_ptr<CleanupProcess>> CleanupProcess::start() {
  const char* const parent = std::getenv("TMPDIR");
  std::string folder =
      std::string(parent && *parent ? parent : "/tmp") + "/virt-compact-appliance-XXXXXX";
  if (!::mkdtemp(folder.data())) return fail(Error::system(errno, folder));
  std::unique_ptr<CleanupProcess> cleanup(new CleanupProcess(folder));
  std::array<int, 2> ends{-1, -1};
  // A socket pair, since a write to a pipe without a reader raises a fatal signal.
  if (retry(::chmod, folder.c_str(), 0755) != 0 ||
      ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0)
    return fail(Error::system(errno, folder));
  const Descriptor child_end(ends[0]);
  cleanup->names_.reset(ends[1]);
  const Descriptor null(retry(::open, "/dev/null", O_RDWR | O_CLOEXEC));
  cleanup->pid_ = ::fork();
  if (cleanup->pid_ == 0) become_cleanup_process(child_end.get(), null.get());
  if (cleanup->pid_ < 0) return fail(Error::system(errno, "fork"));
  cleanup->tell(folder);
  return cleanup;
}

CleanupProcess::~CleanupProcess() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    (void)retry(::waitpid, pid_, nullptr, 0);
  }
  names_.reset();
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

void CleanupProcess::tell(const std::string& folder) {
  // A name with a newline would be read as two names.
  if (folder.find('\n') != std::string::npos) return;
  const std::string line = folder + "\n";
  (void)retry(::send, names_.get(), line.data(), line.size(), MSG_NOSIGNAL);
}

bool CleanupProcess::find_socket() {
  std::error_code error;
  for (const auto& it : std::filesystem::directory_iterator("/proc/self/fd", error)) {
    const std::string name = socket_name(std::atoi(it.path().filename().c_str()));
    if (!name.ends_with(kSocket)) continue;
    tell(name.substr(0, name.size() - kSocket.size()));
    return true;
  }
  return false;
}

}  // namespace vc::appliance
