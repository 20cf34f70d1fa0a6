// Threads of one job, which begin together and are joined on every way out.
#pragma once

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "base/stop.h"

namespace copy {

// Used by one thread.
class ThreadGroup {
 public:
  using Work = std::function<qcow2::Result<void>()>;

  // `what` names the job in messages.  `wake` is called when the job has failed, so that threads
  // that wait look at `stop`; it must be thread-safe.  `stop` must outlive the group.
  ThreadGroup(Stop& stop, std::string what, std::function<void()> wake = {});
  ThreadGroup(const ThreadGroup&) = delete;
  ThreadGroup& operator=(const ThreadGroup&) = delete;
  ~ThreadGroup() { join(); }

  // Starts a thread.  An error of `work`, an exception that leaves it, and a thread that cannot be
  // created are errors of the stop; a cancellation is not.  Returns false if there is no thread.
  bool start(Work work);

  // Returns when all threads have ended.
  void join();

 private:
  void run(const Work& work);
  void fail(qcow2::Error error);

  Stop& stop_;
  const std::string what_;
  const std::function<void()> wake_;
  std::vector<std::thread> threads_;
};

}  // namespace copy
