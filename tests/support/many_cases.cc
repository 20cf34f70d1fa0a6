#include "tests/support/many_cases.h"

#include <atomic>
#include <thread>
#include <vector>

namespace vc::support {

void in_parallel(size_t count, const std::function<void(size_t)>& job) {
  std::atomic<size_t> next{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 24; ++i)
    threads.emplace_back([&] {
      for (size_t at = next++; at < count; at = next++) job(at);
    });
  for (std::thread& it : threads) it.join();
}

}  // namespace vc::support
