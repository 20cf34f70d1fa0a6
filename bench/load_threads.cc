#include "bench/load_threads.h"

#include <cstddef>
#include <latch>
#include <vector>

#include "base/thread_group.h"

namespace vc::bench {

void run_threads(size_t count, Schedule& schedule, Stop& stop, Tally& tally,
                 const std::function<Result<void>(size_t number, Tally& own)>& work) {
  std::vector<Tally> tallies(count);
  ThreadGroup threads(stop, "bench", [&schedule] { schedule.end(); });
  std::latch ready(static_cast<std::ptrdiff_t>(count) + 1);
  for (size_t i = 0; i < count; ++i) {
    const bool started = threads.start([&, i]() -> Result<void> {
      ready.arrive_and_wait();
      return work(i, tallies[i]);
    });
    if (!started) {
      ready.count_down(static_cast<std::ptrdiff_t>(count - i));
      break;
    }
  }
  ready.arrive_and_wait();
  schedule.start();
  if (stop.requested()) schedule.end();
  threads.join();
  for (const Tally& own : tallies) tally.add(own);
}

}  // namespace vc::bench
