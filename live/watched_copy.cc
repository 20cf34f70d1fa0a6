#include "live/watched_copy.h"

#include <atomic>
#include <chrono>
#include <optional>
#include <thread>

#include "base/poll_interval.h"
#include "copy/copier.h"
#include "live/block_job.h"

namespace vc::live {

namespace {

// Requests `stop` when the user stops the run, or when the reserve is used. Runs in a thread of its
// own until destroyed.
class SpaceWatch {
 public:
  SpaceWatch(const RunContext& context, const LiveFolder& folder, Cancel& stop)
      : thread_([this, &context, &folder, &stop] {
          while (!done_.load() && !context.cancel.requested()) {
            if (auto enough = check_reserve(context, folder); !enough) {
              error_ = enough.error();
              break;
            }
            std::this_thread::sleep_for(kPollInterval);
          }
          if (!done_.load()) stop.request();
        }) {}
  SpaceWatch(const SpaceWatch&) = delete;
  SpaceWatch& operator=(const SpaceWatch&) = delete;
  ~SpaceWatch() { end(); }

  // Returns why the copy was stopped; nullopt: not by the watch.
  std::optional<Error> end() {
    done_.store(true);
    if (thread_.joinable()) thread_.join();
    return error_;
  }

 private:
  std::atomic<bool> done_{false};
  std::optional<Error> error_;  // valid after the thread has ended
  std::thread thread_;
};

}  // namespace

Result<copy::CopySummary> copy_watched(const RunContext& context, const LiveFolder& folder,
                                       const copy::CopyOptions& how) {
  Cancel stop;
  SpaceWatch watch(context, folder, stop);
  auto copied = copy::copy(how, context.progress, stop);
  const auto error = watch.end();
  if (!copied && error) return fail(*error);
  return copied;
}

}  // namespace vc::live
