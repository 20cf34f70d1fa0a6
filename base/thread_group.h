// The threads of one job.  All exits join them.
#pragma once

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "base/stop.h"

namespace vc {

// Must be used by one thread only.
class ThreadGroup {
 public:
  using Work = std::function<Result<void>()>;

  // `what` names the job in messages.  `wake` is called when the job has failed, and must wake
  // waiting threads so that they check `stop`; it must be thread-safe.  `stop` must outlive the
  // group.
  ThreadGroup(Stop& stop, std::string what, std::function<void()> wake = {});
  ThreadGroup(const ThreadGroup&) = delete;
  ThreadGroup& operator=(const ThreadGroup&) = delete;
  ~ThreadGroup() { join(); }

  // Starts a thread.  Passes these to the stop: an error of `work` (except a cancellation), an
  // exception that leaves `work`, and a failure to create the thread.  Returns false if no thread
  // was created.
  bool start(Work work);

  // Waits until all threads have ended.
  void join();

 private:
  void run(const Work& work);
  void fail(Error error);

  Stop& stop_;
  const std::string what_;
  const std::function<void()> wake_;
  std::vector<std::thread> threads_;
};

}  // namespace vc
