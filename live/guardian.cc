#include "live/guardian.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>

#include "base/retry.h"

namespace vc::live {

namespace {

// A line of the pipe that arms starts with this character.
constexpr char kArmed = '+';

// Ends when the other end of the pipe is closed.
[[noreturn]] void guard(int pipe, const Guardian::Rescue& rescue) {
  std::string text;
  std::array<char, 4096> piece{};
  while (true) {
    const ssize_t got = retry(::read, pipe, piece.data(), piece.size());
    if (got <= 0) break;
    text.append(piece.data(), static_cast<size_t>(got));
    // Only the last line counts.
    const size_t last = text.find_last_of('\n', text.size() - 2);
    if (text.back() == '\n' && last != std::string::npos) text.erase(0, last + 1);
  }
  if (text.size() > 1 && text.front() == kArmed && text.back() == '\n')
    rescue(text.substr(1, text.size() - 2));
  std::_Exit(0);
}

// The child lives on if the terminal or the group of this process is signalled, and keeps none of
// its files open.
void detach(int pipe) {
  ::setsid();
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) ::signal(signal, SIG_IGN);
  const int null = retry(::open, "/dev/null", O_RDWR | O_CLOEXEC);
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (null >= 0) retry(::dup2, null, fd);
  const auto first = static_cast<unsigned>(pipe);
  if (pipe > STDERR_FILENO + 1) ::close_range(STDERR_FILENO + 1, first - 1, 0);
  ::close_range(first + 1, ~0u, 0);
}

}  // namespace

Result<std::unique_ptr<Guardian>> Guardian::start(const Rescue& rescue) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail(Error::system(errno, "pipe"));
  Descriptor reading(ends[0]);
  Descriptor writing(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) return fail(Error::system(errno, "fork"));
  if (child == 0) {
    detach(reading.get());
    guard(reading.get(), rescue);
  }
  return std::unique_ptr<Guardian>(new Guardian(child, std::move(writing)));
}

Guardian::~Guardian() {
  pipe_.reset();
  int status = 0;
  retry(::waitpid, child_, &status, 0);
}

Result<void> Guardian::send(const std::string& line) {
  for (size_t at = 0; at < line.size();) {
    const ssize_t put = retry(::write, pipe_.get(), line.data() + at, line.size() - at);
    if (put < 0)
      return fail(Error::system(errno, "the process that resumes the guest after a failure"));
    at += static_cast<size_t>(put);
  }
  return {};
}

Result<void> Guardian::arm(const std::string& task) {
  return send(kArmed + task + "\n");
}

Result<void> Guardian::disarm() {
  return send("-\n");
}

}  // namespace vc::live
