#include "tool/terminal/rate_meter.h"

#include <cmath>

#include "tests/catch_text.h"

using namespace vc;

using tool::RateMeter;

namespace {

constexpr uint64_t kTiB = uint64_t{1} << 40;

// A job with ten progress reports per second.
class Job {
 public:
  explicit Job(double start = 0) : now_(start) { meter.start(now_, 0); }

  void run(double seconds, uint64_t bytes_per_second) {
    for (int i = 0; i < std::lround(seconds * 10); ++i) {
      now_ += 0.1;
      done_ += bytes_per_second / 10;
      meter.sample(now_, done_);
    }
  }
  void leap(uint64_t bytes) { done_ += bytes; }

  RateMeter meter;

 private:
  double now_;
  uint64_t done_ = 0;
};

}  // namespace

TEST_CASE("in the first second there is no rate", "[rate_meter]") {
  CHECK_FALSE(RateMeter().bytes_per_second());
  Job job(17);
  CHECK_FALSE(job.meter.bytes_per_second());
  job.run(0.9, 1000);
  CHECK_FALSE(job.meter.bytes_per_second());
  job.run(0.2, 1000);
  REQUIRE(job.meter.bytes_per_second());
  CHECK(*job.meter.bytes_per_second() == Approx(1000));
  job.meter.start(100, 0);
  CHECK_FALSE(job.meter.bytes_per_second());
}

TEST_CASE("the rate is that of the last seconds", "[rate_meter]") {
  Job job;
  job.run(60, 500);
  CHECK(*job.meter.bytes_per_second() == Approx(500).epsilon(0.01));
  job.run(5, 1500);
  CHECK(*job.meter.bytes_per_second() == Approx(1000).epsilon(0.1));
  job.run(6, 1500);
  CHECK(*job.meter.bytes_per_second() == Approx(1500).epsilon(0.01));
  // After a stop, the rate falls slowly to zero.
  job.run(2, 0);
  CHECK(*job.meter.bytes_per_second() == Approx(1200).epsilon(0.1));
  job.run(12, 0);
  CHECK(*job.meter.bytes_per_second() == 0);
}

TEST_CASE("skipped holes do not count in the rate", "[rate_meter]") {
  Job job;
  SECTION("at the beginning") {
    job.leap(kTiB);
    job.run(3, 1000);
    CHECK(*job.meter.bytes_per_second() < 2600);
  }
  SECTION("on the way") {
    job.run(30, 1000);
    job.leap(kTiB);
    job.run(1, 1000);
    CHECK(*job.meter.bytes_per_second() < 1500);
    job.leap(kTiB);
    job.run(1, 1000);
    CHECK(*job.meter.bytes_per_second() < 2000);
  }
  job.run(12, 1000);
  CHECK(*job.meter.bytes_per_second() == Approx(1000).epsilon(0.01));
}

TEST_CASE("the rate of a job with irregular progress is an average", "[rate_meter]") {
  Job job;
  for (int i = 0; i < 20; ++i) {
    job.leap(30'000);
    job.run(3, 0);
  }
  CHECK(*job.meter.bytes_per_second() > 7'000);
  CHECK(*job.meter.bytes_per_second() < 13'000);
}

TEST_CASE("rare queries get the average since the last one", "[rate_meter]") {
  RateMeter meter;
  meter.start(0, 0);
  meter.sample(60, 60'000);
  CHECK(*meter.bytes_per_second() == Approx(1000));
  meter.sample(120, 180'000);
  CHECK(*meter.bytes_per_second() == Approx(2000));
}
