#include "storage/shared_flush.h"

#include <atomic>
#include <thread>
#include <vector>

#include "tests/catch_text.h"

using namespace vc;

TEST_CASE("a flush covers all writes before its request", "[shared-flush][threads]") {
  SharedFlush shared;
  std::atomic<uint64_t> written{0};
  std::atomic<uint64_t> safe{0};
  std::atomic<unsigned> flushes{0};
  std::atomic<unsigned> running{0};
  std::atomic<unsigned> wrong{0};
  constexpr unsigned kThreads = 8;
  constexpr unsigned kRounds = 200;
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; ++t)
    threads.emplace_back([&] {
      for (unsigned i = 0; i < kRounds; ++i) {
        const uint64_t mine = ++written;
        (void)shared.run([&]() -> Result<void> {
          if (++running != 1) ++wrong;
          const uint64_t seen = written;
          std::this_thread::sleep_for(std::chrono::microseconds(50));
          safe = seen;
          ++flushes;
          --running;
          return {};
        });
        if (safe < mine) ++wrong;
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
  // Several callers share a flush.
  CHECK(flushes < kThreads * kRounds);
}

TEST_CASE("all threads that share a failed flush get its error, and no others",
          "[shared-flush][threads]") {
  SharedFlush shared;
  REQUIRE_FAILS_WITH(shared.run([]() -> Result<void> { return fail(Error::invalid("no room")); }),
                     "no room");
  REQUIRE_OK(shared.run([]() -> Result<void> { return {}; }));
}
