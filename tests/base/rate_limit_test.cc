#include "base/rate_limit.h"

#include <functional>
#include <thread>
#include <vector>

#include "tests/catch_text.h"

using namespace vc;

using namespace std::chrono_literals;

namespace {

// A clock that advances only when a thread sleeps.
class FakeClock final : public RateLimit::Clock {
 public:
  Time now() override { return time; }
  void sleep_until(Time until) override {
    longest_sleep = std::max<std::chrono::nanoseconds>(longest_sleep, until - time);
    ++sleeps;
    time = until;
    if (on_sleep) on_sleep();
  }

  double seconds() const {
    return std::chrono::duration<double>(time.time_since_epoch()).count() - 1000;
  }

  Time time{1000s};
  std::chrono::nanoseconds longest_sleep{0};
  size_t sleeps = 0;
  std::function<void()> on_sleep;
};

}  // namespace

TEST_CASE("reads keep to the requested rate", "[rate_limit]") {
  FakeClock clock;
  RateLimit limit(1 << 20, &clock);
  const Cancel cancel;
  const Stop stop(cancel);
  for (int i = 1; i <= 100; ++i) {
    limit.take(256 << 10, stop);
    CHECK(clock.seconds() == Approx(0.25 * i));
  }
  // The same time, however the amount is divided.
  for (int i = 0; i < 1024; ++i) limit.take(1 << 10, stop);
  CHECK(clock.seconds() == Approx(26));
  limit.take(3 << 20, stop);
  CHECK(clock.seconds() == Approx(29));
}

TEST_CASE("unused time of the rate limit is not used later", "[rate_limit]") {
  FakeClock clock;
  RateLimit limit(1000, &clock);
  const Cancel cancel;
  const Stop stop(cancel);
  clock.time += 1h;
  const double start = clock.seconds();
  limit.take(100, stop);  // the tokens of a tenth of a second are there
  CHECK(clock.seconds() == Approx(start));
  limit.take(100, stop);
  CHECK(clock.seconds() == Approx(start + 0.1));
  // A short wait is not lost.
  clock.time += 50ms;
  limit.take(100, stop);
  CHECK(clock.seconds() == Approx(start + 0.2));
}

TEST_CASE("without a limit the clock is not read", "[rate_limit]") {
  FakeClock clock;
  clock.on_sleep = [] { FAIL("somebody waits"); };
  RateLimit limit(0, &clock);
  const Cancel cancel;
  const Stop stop(cancel);
  limit.take(UINT64_MAX, stop);
  CHECK(clock.sleeps == 0);
}

TEST_CASE("extreme rates and sizes cause no overflow", "[rate_limit]") {
  Cancel cancel;
  const Stop stop(cancel);
  FakeClock fast;
  RateLimit most(UINT64_MAX, &fast);
  for (int i = 0; i < 1000; ++i) most.take(1 << 20, stop);
  CHECK(fast.seconds() < 0.001);

  // Waits for many years, until it is cancelled.
  FakeClock slow;
  slow.on_sleep = [&] {
    if (slow.sleeps % 100 == 0) cancel.request();
  };
  RateLimit least(1, &slow);
  for (int i = 0; i < 1000; ++i) least.take(UINT64_MAX, stop);
  CHECK(slow.sleeps == 100);
}

TEST_CASE("waiting threads check often whether to stop", "[rate_limit]") {
  FakeClock clock;
  Cancel cancel;
  clock.on_sleep = [&] {
    if (clock.seconds() > 5) cancel.request();
  };
  const Stop stop(cancel);
  RateLimit limit(1, &clock);
  limit.take(1000, stop);
  CHECK(clock.seconds() < 5.1);
  CHECK(clock.longest_sleep <= 50ms);
}

TEST_CASE("an error of another thread wakes all waiting threads", "[rate_limit]") {
  const Cancel cancel;
  Stop stop(cancel);
  RateLimit limit(1);
  std::vector<std::thread> threads;
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 4; ++i) threads.emplace_back([&] { limit.take(1 << 30, stop); });
  std::this_thread::sleep_for(20ms);
  stop.fail(Error::invalid("enough"));
  for (std::thread& thread : threads) thread.join();
  CHECK(std::chrono::steady_clock::now() - start < 30s);
}

TEST_CASE("several threads together keep to the rate", "[rate_limit]") {
  constexpr uint64_t kRate = 100'000'000;
  constexpr uint64_t kBytes = 100'000;
  const Cancel cancel;
  const Stop stop(cancel);
  RateLimit limit(kRate);
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int turn = 0; turn < 50; ++turn) limit.take(kBytes, stop);
    });
  for (std::thread& thread : threads) thread.join();
  // 200 waits of a millisecond. No time before the start counts.
  CHECK(std::chrono::steady_clock::now() - start >= 199ms);
}
