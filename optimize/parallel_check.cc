#include "optimize/parallel_check.h"

#include <utility>

namespace vc::optimize {

namespace {

// How soon the work learns that the user wants to stop: a signal handler wakes no thread.
constexpr std::chrono::milliseconds kPeriod(20);

}  // namespace

ParallelCheck::ParallelCheck(std::function<Result<void>()> check, const Cancel& cancel)
    : check_(std::move(check)), cancel_(cancel), thread_([this] { run(); }) {}

ParallelCheck::~ParallelCheck() {
  stop();
}

void ParallelCheck::run() {
  const auto start = std::chrono::steady_clock::now();
  result_ = check_();
  elapsed_ = std::chrono::steady_clock::now() - start;
  if (!result_) work_cancel_.request();
  std::unique_lock lock(mutex_);
  while (!wakes_.wait_for(lock, kPeriod, [this] { return work_done_; }))
    if (cancel_.requested()) work_cancel_.request();
}

void ParallelCheck::stop() {
  {
    const std::lock_guard lock(mutex_);
    work_done_ = true;
  }
  wakes_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Result<void> ParallelCheck::finish() {
  stop();
  return result_;
}

}  // namespace vc::optimize
