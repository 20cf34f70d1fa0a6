#include "tests/support/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <thread>

namespace vc::support {

namespace {

// How long a program gets to end.  A short wait: started programs have no data worth saving, and
// nbdkit with AddressSanitizer sometimes hangs in a library's destructors.  With ThreadSanitizer,
// nbdkit never ends by itself.
#ifdef __SANITIZE_THREAD__
constexpr std::chrono::milliseconds kPatience{100};
#else
constexpr std::chrono::milliseconds kPatience{2000};
#endif

using Clock = std::chrono::steady_clock;

constexpr int kCannotExecute = 127;

[[noreturn]] void fail(const std::string& what) {
  throw std::runtime_error(fmt::format("{}: {}", what, std::strerror(errno)));
}

// A descriptor that is closed by its destructor.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { reset(); }
  int get() const { return fd_; }
  void reset(int fd = -1) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = fd;
  }

 private:
  int fd_;
};

struct Pipe {
  Descriptor reader, writer;
  Pipe() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) fail("pipe");
    reader.reset(ends[0]);
    writer.reset(ends[1]);
  }
};

// The words of a command and its environment, in the form for exec. Made before the fork: between
// fork and exec, the child of a threaded process may only call async-signal-safe functions.
class Words {
 public:
  explicit Words(std::vector<std::string> words) : words_(std::move(words)) {
    for (std::string& word : words_) pointers_.push_back(word.data());
    pointers_.push_back(nullptr);
  }
  char** data() { return pointers_.data(); }

 private:
  std::vector<std::string> words_;
  std::vector<char*> pointers_;
};

std::vector<std::string> environment_with(const std::vector<std::string>& more) {
  std::vector<std::string> all;
  for (char** it = environ; *it; ++it) {
    const std::string name = std::string(*it).substr(0, std::string(*it).find('=') + 1);
    bool replaced = false;
    for (const std::string& own : more) replaced |= own.compare(0, name.size(), name) == 0;
    if (!replaced) all.emplace_back(*it);
  }
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

pid_t start(const std::vector<std::string>& command, const RunOptions& options, int in, int out,
            int err) {
  Words argv(command);
  Words envp(environment_with(options.environment));
  const pid_t pid = ::fork();
  if (pid < 0) fail("fork");
  if (pid > 0) return pid;

  ::setpgid(0, 0);
  // A started program ends with the test, even if the test is killed.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  // No core dumps: some tests end qemu-io with signals.
  const rlimit no_core{0, 0};
  ::setrlimit(RLIMIT_CORE, &no_core);
  if (options.address_space_limit != 0) {
    const rlimit limit{options.address_space_limit, options.address_space_limit};
    ::setrlimit(RLIMIT_AS, &limit);
  }
  if (!options.directory.empty() && ::chdir(options.directory.c_str()) != 0) ::_exit(126);
  if (::dup2(in, 0) < 0 || ::dup2(out, 1) < 0 || ::dup2(err, 2) < 0) ::_exit(126);
  ::execvpe(argv.data()[0], argv.data(), envp.data());
  ::_exit(kCannotExecute);
}

// Moves available data from `from` to `to`. Returns false at the end.
bool drain(int from, std::string& to) {
  std::array<char, 16384> buffer{};
  const ssize_t got = ::read(from, buffer.data(), buffer.size());
  if (got < 0) return errno == EINTR || errno == EAGAIN;
  to.append(buffer.data(), static_cast<size_t>(got));
  return got > 0;
}

}  // namespace

std::string shell_line(const std::vector<std::string>& command) {
  std::string line;
  for (const std::string& word : command) {
    if (!line.empty()) line += ' ';
    if (!word.empty() && word.find_first_of(" \t\n'\"\\$&;|<>*?[](){}`!#~") == std::string::npos) {
      line += word;
      continue;
    }
    line += '\'';
    for (const char c : word) line += c == '\'' ? std::string("'\\''") : std::string(1, c);
    line += '\'';
  }
  return line;
}

std::string Outcome::describe() const {
  std::string how = fmt::format("exit code {}", exit_code);
  if (signal != 0) how = fmt::format("ended by signal {} ({})", signal, ::strsignal(signal));
  if (timed_out) how += ", killed at its timeout";
  return fmt::format("{} after {:.2f} s, {} KiB\nstdout: {}\nstderr: {}", how, elapsed.count(),
                     peak_memory >> 10, out.substr(0, 4000), err.substr(0, 4000));
}

Outcome run(const std::vector<std::string>& command, const RunOptions& options) {
  const auto begin = Clock::now();
  const auto deadline = begin + options.timeout;
  Pipe in, out, err;
  const pid_t pid = start(command, options, in.reader.get(), out.writer.get(), err.writer.get());
  in.reader.reset();
  out.writer.reset();
  err.writer.reset();

  Outcome outcome;
  // A program that closes its input must not raise a signal here.
  struct sigaction ignore {};
  struct sigaction before {};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &ignore, &before);
  size_t written = 0;
  if (options.input.empty()) in.writer.reset();
  while (out.reader.get() >= 0 || err.reader.get() >= 0) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) {
      outcome.timed_out = true;
      break;
    }
    std::array<pollfd, 3> wait{{{out.reader.get(), POLLIN, 0},
                                {err.reader.get(), POLLIN, 0},
                                {in.writer.get(), POLLOUT, 0}}};
    if (::poll(wait.data(), wait.size(), static_cast<int>(left)) < 0 && errno != EINTR)
      fail("poll");
    if (wait[0].revents != 0 && !drain(out.reader.get(), outcome.out)) out.reader.reset();
    if (wait[1].revents != 0 && !drain(err.reader.get(), outcome.err)) err.reader.reset();
    if (wait[2].revents != 0) {
      // A writable pipe takes PIPE_BUF bytes without waiting.
      const size_t size = std::min<size_t>(options.input.size() - written, PIPE_BUF);
      const ssize_t put = ::write(in.writer.get(), options.input.data() + written, size);
      if (put > 0) written += static_cast<size_t>(put);
      if (put < 0 || written == options.input.size()) in.writer.reset();
    }
  }
  ::sigaction(SIGPIPE, &before, nullptr);
  if (outcome.timed_out) ::kill(-pid, SIGKILL);

  // The program has closed its outputs, but may still run.
  int status = 0;
  rusage usage{};
  while (true) {
    const pid_t ended = ::wait4(pid, &status, outcome.timed_out ? 0 : WNOHANG, &usage);
    if (ended == pid) break;
    if (ended < 0 && errno != EINTR) fail("wait4");
    if (Clock::now() >= deadline) {
      outcome.timed_out = true;
      ::kill(-pid, SIGKILL);
    } else {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  outcome.elapsed = Clock::now() - begin;
  outcome.peak_memory = static_cast<uint64_t>(usage.ru_maxrss) << 10;
  if (WIFEXITED(status)) outcome.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) outcome.signal = WTERMSIG(status);
  if (outcome.exit_code == kCannotExecute)
    throw std::runtime_error("cannot run " + shell_line(command) + ": " + outcome.err);
  return outcome;
}

Outcome run_ok(const std::vector<std::string>& command, const RunOptions& options) {
  Outcome outcome = run(command, options);
  if (!outcome.ok()) throw std::runtime_error(shell_line(command) + ": " + outcome.describe());
  return outcome;
}

Child::Child(const std::vector<std::string>& command, const std::string& log) {
  const Descriptor null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const Descriptor file(::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
  if (null.get() < 0 || file.get() < 0) fail(log);
  pid_ = start(command, {}, null.get(), file.get(), file.get());
}

Child::~Child() {
  if (!running()) return;
  ::kill(pid_, SIGTERM);
  const auto deadline = Clock::now() + kPatience;
  while (running() && Clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  kill();
}

bool Child::running() {
  if (!reaped_) {
    int status = 0;
    reaped_ = ::waitpid(pid_, &status, WNOHANG) == pid_;
  }
  return !reaped_;
}

void Child::kill() {
  if (!running()) return;
  ::kill(pid_, SIGKILL);
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  reaped_ = true;
}

}  // namespace vc::support
