#include "base/thread_group.h"

#include <system_error>
#include <utility>

#include "base/caught.h"

namespace vc {

ThreadGroup::ThreadGroup(Stop& stop, std::string what, std::function<void()> wake)
    : stop_(stop), what_(std::move(what)), wake_(std::move(wake)) {}

void ThreadGroup::fail(Error error) {
  stop_.fail(std::move(error));
  if (wake_) wake_();
}

void ThreadGroup::run(const Work& work) {
  auto result = caught(what_, work);
  if (!result && result.error().kind() != Error::Kind::kCancelled) fail(std::move(result).error());
}

bool ThreadGroup::start(Work work) {
  try {
    threads_.emplace_back([this, work = std::move(work)] { run(work); });
  } catch (const std::system_error& error) {
    fail(Error::system(error.code().value(), what_ + ": a thread cannot be created"));
    return false;
  }
  return true;
}

void ThreadGroup::join() {
  for (std::thread& thread : threads_)
    if (thread.joinable()) thread.join();
}

}  // namespace vc
