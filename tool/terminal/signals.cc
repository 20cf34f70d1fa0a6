#include "tool/terminal/signals.h"

#include <fcntl.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>

#include "base/mutex.h"

namespace vc::tool {

namespace {

constexpr std::array kStopSignals = {SIGINT, SIGTERM, SIGHUP};
// timeout(1) and terminals send one request twice, to the process and to its group. A second signal
// within this time belongs to the same request.
constexpr int64_t kSameRequestNanoseconds = 250'000'000;

std::atomic<Cancel*> cancel_on_signal{nullptr};
std::atomic<int> first_signal{0};
std::atomic<int64_t> first_signal_time{0};
std::array<struct sigaction, kStopSignals.size()> previous_actions;
// Held by requesting threads, and while the cancel object is destroyed. Signal handlers do not use
// it.
Mutex cancel_mutex;

static_assert(std::atomic<Cancel*>::is_always_lock_free);
static_assert(std::atomic<int64_t>::is_always_lock_free);

int64_t now() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

// Must be async-signal-safe.
void on_stop_signal(int signal) {
  const int saved_errno = errno;
  int none = 0;
  if (first_signal.compare_exchange_strong(none, signal)) {
    first_signal_time.store(now());
  } else if (signal == SIGINT && now() - first_signal_time.load() > kSameRequestNanoseconds) {
    ::signal(signal, SIG_DFL);
    ::raise(signal);  // takes effect when the handler returns
  }
  if (Cancel* cancel = cancel_on_signal.load()) cancel->request();
  errno = saved_errno;
}

}  // namespace

StopSignals::StopSignals(Cancel& cancel) {
  cancel_on_signal.store(&cancel);
  struct sigaction action {};
  action.sa_handler = on_stop_signal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < kStopSignals.size(); ++i) {
    ::sigaction(kStopSignals[i], nullptr, &previous_actions[i]);
    if (previous_actions[i].sa_handler != SIG_IGN) ::sigaction(kStopSignals[i], &action, nullptr);
  }
}

StopSignals::~StopSignals() {
  for (size_t i = 0; i < kStopSignals.size(); ++i)
    ::sigaction(kStopSignals[i], &previous_actions[i], nullptr);
  const MutexLock lock(cancel_mutex);
  cancel_on_signal.store(nullptr);
}

bool cancel_command() {
  const MutexLock lock(cancel_mutex);
  Cancel* const cancel = cancel_on_signal.load();
  if (cancel) cancel->request();
  return cancel != nullptr;
}

int stop_signal() {
  return first_signal.load();
}

void die_by(int signal) {
  ::signal(signal, SIG_DFL);
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, signal);
  ::sigprocmask(SIG_UNBLOCK, &mask, nullptr);
  ::raise(signal);
  std::_Exit(128 + signal);
}

void prepare_process() {
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGXFSZ, SIG_IGN);
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(fd, F_GETFD) >= 0) continue;
    // Opened in the wrong direction, so that use is an error, as with a closed descriptor. The open
    // returns the lowest free number, which is `fd`.
    (void)::open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  }
}

}  // namespace vc::tool
