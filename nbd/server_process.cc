#include "nbd/server_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>

#include "base/retry.h"
#include "storage/descriptor.h"

namespace vc::nbd {

namespace {

using Clock = std::chrono::steady_clock;

// The first descriptor of systemd's socket activation (sd_listen_fds(3)).
constexpr int kActivated = 3;
// Poll interval of waits for a process, which no event ends.
constexpr std::chrono::milliseconds kProcessPollInterval{5};
constexpr std::chrono::seconds kPatienceWhenStopped{5};
// Longest time between a server's hang-up and its exit.
constexpr std::chrono::milliseconds kLastBreath{300};

// A listening socket and a way to connect to it, both without a name.
struct Listener {
  Descriptor listening;
  Descriptor path;  // O_PATH: connect to /proc/self/fd/N
};

Result<void> listen(Listener& listener) {
  const char* const parent = std::getenv("TMPDIR");
  std::string folder = fmt::format("{}/virt-compact-XXXXXX", parent && *parent ? parent : "/tmp");
  if (!::mkdtemp(folder.data())) return fail(Error::system(errno, folder));
  const std::string name = folder + "/socket";
  const auto make = [&]() -> Result<void> {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (name.size() >= sizeof address.sun_path)
      return fail(Error::invalid(
          name +
          ": the name is too long for a socket: set TMPDIR to a folder with a shorter name"));
    std::memcpy(address.sun_path, name.c_str(), name.size() + 1);
    listener.listening.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (listener.listening.get() < 0 ||
        ::bind(listener.listening.get(), reinterpret_cast<const sockaddr*>(&address),
               sizeof address) != 0 ||
        ::listen(listener.listening.get(), SOMAXCONN) != 0)
      return fail(Error::system(errno, name));
    listener.path.reset(retry(::open, name.c_str(), O_PATH | O_CLOEXEC));
    if (listener.path.get() < 0) return fail(Error::system(errno, name));
    return {};
  };
  auto made = make();
  retry(::unlink, name.c_str());
  retry(::rmdir, folder.c_str());
  return made;
}

// The environment of an activated server. The value of LISTEN_PID is known only in the child, which
// must not allocate memory. So its space is reserved here.
class Environment {
 public:
  Environment() {
    for (char** it = environ; *it; ++it)
      if (std::strncmp(*it, "LISTEN_", 7) != 0) words_.emplace_back(*it);
    words_.emplace_back("LISTEN_FDS=1");
    words_.emplace_back("LISTEN_PID=" + std::string(kDigits, '\0'));
    for (std::string& word : words_) pointers_.push_back(word.data());
    pointers_.push_back(nullptr);
  }

  // Async-signal-safe.
  char** for_process(pid_t pid) {
    char* const to = words_.back().data() + std::strlen("LISTEN_PID=");
    std::array<char, kDigits> reversed{};
    size_t digits = 0;
    for (auto rest = static_cast<unsigned>(pid); rest != 0 && digits < kDigits; rest /= 10)
      reversed[digits++] = static_cast<char>('0' + rest % 10);
    for (size_t i = 0; i < digits; ++i) to[i] = reversed[digits - 1 - i];
    return pointers_.data();
  }

 private:
  static constexpr size_t kDigits = 10;
  std::vector<std::string> words_;
  std::vector<char*> pointers_;
};

// Runs in the child: executes the server, or writes the errno to `report`.  Must be
// async-signal-safe.
[[noreturn]] void become(char** argv, Environment& environment, int listening, int null, int report,
                         pid_t parent) {
  const auto check = [&](bool good) {
    if (good) return;
    const int errnum = errno;
    [[maybe_unused]] const ssize_t told = ::write(report, &errnum, sizeof errnum);
    ::_exit(127);
  };
  check(::setpgid(0, 0) == 0);
  check(::prctl(PR_SET_PDEATHSIG, SIGTERM) == 0);
  if (::getppid() != parent) ::_exit(127);  // the parent has exited
  // Resets the signals that this process ignores or blocks.
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int signum : {SIGPIPE, SIGINT, SIGTERM, SIGHUP}) ::signal(signum, SIG_DFL);
  check(::dup2(null, 0) >= 0 && ::dup2(2, 1) >= 0);
  check(::dup2(listening, kActivated) >= 0);
  ::execvpe(argv[0], argv, environment.for_process(::getpid()));
  check(false);
  ::_exit(127);
}

std::string describe(const siginfo_t& info) {
  if (info.si_code == CLD_EXITED) return fmt::format("exit status {}", info.si_status);
  return fmt::format("killed by signal {} ({})", info.si_status, ::strsignal(info.si_status));
}

}  // namespace

Result<std::unique_ptr<ServerProcess>> ServerProcess::start(const std::vector<std::string>& command,
                                                            const Stop& stop) {
  if (command.empty() || command.front().empty())
    return fail(Error::invalid("[ ]: there is no command to start"));
  Listener listener;
  RETURN_IF_ERROR(listen(listener));
  // A number above the descriptor that the child replaces.
  Descriptor listening(retry(::fcntl, listener.listening.get(), F_DUPFD_CLOEXEC, 10));
  Descriptor null(retry(::open, "/dev/null", O_RDONLY | O_CLOEXEC));
  std::array<int, 2> ends{-1, -1};
  if (listening.get() < 0 || null.get() < 0 || ::pipe2(ends.data(), O_CLOEXEC) != 0)
    return fail(Error::system(errno, command.front()));
  Descriptor reader(ends[0]);
  Descriptor low_writer(ends[1]);
  Descriptor writer(retry(::fcntl, low_writer.get(), F_DUPFD_CLOEXEC, 10));
  low_writer.reset();
  if (writer.get() < 0) return fail(Error::system(errno, command.front()));

  std::vector<std::string> words = command;
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  Environment environment;
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) return fail(Error::system(errno, "fork"));
  if (pid == 0) become(argv.data(), environment, listening.get(), null.get(), writer.get(), parent);

  std::string uri = fmt::format("nbd+unix:///?socket=/proc/self/fd/{}", listener.path.get());
  std::unique_ptr<ServerProcess> server(
      new ServerProcess(pid, std::move(listener.path), std::move(uri), stop));
  // An open copy here would keep connections waiting after the server has exited.
  listener.listening.reset();
  listening.reset();
  writer.reset();
  int errnum = 0;
  const ssize_t got = retry(::read, reader.get(), &errnum, sizeof errnum);
  if (got == static_cast<ssize_t>(sizeof errnum))
    return fail(Error::system(errnum, fmt::format("cannot execute '{}'", command.front())));
  return server;
}

// Does not reap the process: its ID, and its group's, stay reserved until the end.
std::optional<std::string> ServerProcess::ended() {
  siginfo_t info{};
  if (::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
      info.si_pid != pid_)
    return std::nullopt;
  return describe(info);
}

std::optional<std::string> ServerProcess::ending() {
  const auto deadline = Clock::now() + kLastBreath;
  while (true) {
    if (auto how = ended(); how || Clock::now() >= deadline) return how;
    std::this_thread::sleep_for(kProcessPollInterval);
  }
}

std::string ServerProcess::socket_path() const {
  return fmt::format("/proc/{}/fd/{}", ::getpid(), socket_.get());
}

Result<void> ServerProcess::finish(std::chrono::seconds patience) {
  const auto start = Clock::now();
  // Signals the server only: it must end its own children.
  ::kill(pid_, SIGTERM);
  while (!ended()) {
    if (Clock::now() - start > patience)
      return fail(
          Error::system(ETIMEDOUT, fmt::format("the server does not end (process {})", pid_)));
    std::this_thread::sleep_for(kProcessPollInterval);
  }
  siginfo_t info{};
  if (::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
      (info.si_code != CLD_EXITED || info.si_status != 0))
    return fail(Error::protocol(EIO, fmt::format("the server failed: {}", describe(info))));
  return {};
}

ServerProcess::~ServerProcess() {
  const auto start = Clock::now();
  const auto patience = [this] {
    return stop_.requested() ? std::min(patience_, kPatienceWhenStopped) : patience_;
  };
  ::kill(-pid_, SIGTERM);
  while (!ended() && Clock::now() - start < patience())
    std::this_thread::sleep_for(kProcessPollInterval);
  ::kill(-pid_, SIGKILL);
  int status = 0;
  (void)retry(::waitpid, pid_, &status, 0);
}

}  // namespace vc::nbd
