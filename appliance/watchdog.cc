#include "appliance/watchdog.h"

#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <fstream>
#include <utility>

#include "base/poll_interval.h"

namespace vc::appliance {

namespace {

using Clock = std::chrono::steady_clock;

// Time for the running call, and then for unmounting and shutting down.
constexpr std::chrono::seconds kGrace(4);
// With KVM, an appliance boots in seconds. Where KVM does not work, it may hang forever.
constexpr std::chrono::seconds kLaunchLimit(25);
// Length to which the kernel truncates process names.
constexpr size_t kNameLength = 15;

// Returns the running child processes that a thread of this process has started.
std::vector<pid_t> children_of(pid_t thread) {
  std::vector<pid_t> children;
  std::ifstream list(fmt::format("/proc/self/task/{}/children", thread));
  for (pid_t child = 0; list >> child;) children.push_back(child);
  return children;
}

bool has_name(pid_t process, const std::string& program) {
  std::string name;
  std::getline(std::ifstream(fmt::format("/proc/{}/comm", process)), name);
  return !name.empty() && name == program.substr(0, kNameLength);
}

}  // namespace

Watchdog::Watchdog(const Cancel& cancel, std::vector<const nbd::ProxyNote*> notes)
    : cancel_(cancel), notes_(std::move(notes)), launcher_(::gettid()) {
  thread_ = std::thread([this] { run(); });
}

void Watchdog::launching(std::string program, bool limited, CleanupProcess& cleanup) {
  const MutexLock lock(mutex_);
  program_ = std::move(program);
  launching_ = true;
  limited_ = limited;
  cleanup_ = &cleanup;
}

void Watchdog::launched(pid_t qemu) {
  const MutexLock lock(mutex_);
  launching_ = false;
  if (qemu > 0) qemu_ = Descriptor(static_cast<int>(::syscall(SYS_pidfd_open, qemu, 0)));
}

bool Watchdog::server_lost() const {
  return std::any_of(notes_.begin(), notes_.end(),
                     [](const nbd::ProxyNote* note) { return note->text().has_value(); });
}

void Watchdog::stop() {
  {
    const MutexLock lock(mutex_);
    stopped_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
  const MutexLock lock(mutex_);
  qemu_.reset();
}

void Watchdog::stop_with_qemu() {
  {
    const MutexLock lock(mutex_);
    if (qemu_) ::syscall(SYS_pidfd_send_signal, qemu_.get(), SIGKILL, nullptr, 0);
  }
  stop();
}

// libguestfs reaps these processes, and only after a failed launch. Until then, their IDs are not
// reused.
void Watchdog::kill_children() const {
  for (const pid_t child : children_of(launcher_))
    if (has_name(child, program_)) ::kill(child, SIGKILL);
}

void Watchdog::run() {
  // Other threads handle the signals.
  sigset_t all;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, nullptr);

  Clock::time_point cancelled{};
  Clock::time_point started{};  // set when a QEMU is seen
  MutexLock lock(mutex_);
  while (!stopped_) {
    wake_.wait_for(lock, kPollInterval);
    if (stopped_) break;
    const auto now = Clock::now();
    const bool lost = server_lost();
    if (cancel_.requested() && cancelled == Clock::time_point{}) cancelled = now;
    if (cleanup_ && cleanup_->find_socket()) cleanup_ = nullptr;
    if (launching_) {
      const auto children = children_of(launcher_);
      bool there = false;
      for (const pid_t child : children) there = there || has_name(child, program_);
      if (!there) started = {};
      if (there && started == Clock::time_point{}) started = now;
      const bool late = limited_ && there && now - started > kLaunchLimit;
      if (there && (late || lost || cancelled != Clock::time_point{})) kill_children();
      continue;
    }
    const bool over = cancelled != Clock::time_point{} && now - cancelled > kGrace;
    if (qemu_ && (lost || over)) {
      ::syscall(SYS_pidfd_send_signal, qemu_.get(), SIGKILL, nullptr, 0);
    }
  }
}

}  // namespace vc::appliance
