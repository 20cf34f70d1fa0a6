#include "optimize/parallel_check.h"

#include <utility>

#include "base/caught.h"
#include "base/poll_interval.h"

namespace vc::optimize {

ParallelCheck::ParallelCheck(std::function<Result<void>()> check, const Cancel& cancel)
    : check_(std::move(check)), cancel_(cancel), thread_([this] { run(); }) {}

ParallelCheck::~ParallelCheck() {
  {
    const MutexLock lock(mutex_);
    work_done_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void ParallelCheck::run() {
  const auto start = std::chrono::steady_clock::now();
  auto result = caught("the check", check_);
  MutexLock lock(mutex_);
  elapsed_ = std::chrono::steady_clock::now() - start;
  if (!result) work_cancel_.request();
  result_ = std::move(result);
  changed_.notify_all();
  while (!work_done_) {
    if (cancel_.requested()) work_cancel_.request();
    changed_.wait_for(lock, kPollInterval);
  }
}

Result<void> ParallelCheck::wait() {
  MutexLock lock(mutex_);
  while (!result_) changed_.wait(lock);
  return *result_;
}

}  // namespace vc::optimize
