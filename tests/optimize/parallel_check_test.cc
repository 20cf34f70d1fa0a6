// Tests a check that runs concurrently with other work.
#include "optimize/parallel_check.h"

#include <atomic>
#include <new>
#include <stdexcept>
#include <thread>

#include "tests/catch.h"

using namespace vc;

using optimize::ParallelCheck;

namespace {

void wait_for(const Cancel& cancel) {
  while (!cancel.requested()) std::this_thread::yield();
}

}  // namespace

TEST_CASE("work ends when the check beside it fails", "[parallel]") {
  const Cancel user;
  ParallelCheck check([]() -> Result<void> { return fail(Error::corrupt("bad")); }, user);
  wait_for(check.work_cancel());
  const auto result = check.wait();
  REQUIRE_FALSE(result);
  CHECK(result.error().message() == "bad");
}

TEST_CASE("an exception of the check is a failure", "[parallel]") {
  const Cancel user;
  const bool is_memory = GENERATE(false, true);
  ParallelCheck check(
      [&]() -> Result<void> {
        if (is_memory) throw std::bad_alloc();
        throw std::runtime_error("a bad day");
      },
      user);
  wait_for(check.work_cancel());
  const auto result = check.wait();
  REQUIRE_FALSE(result);
  CHECK(result.error().message() ==
        (is_memory ? "the check: Cannot allocate memory" : "the check: a bad day"));
}

TEST_CASE("after a successful check, the user can still stop the work", "[parallel]") {
  Cancel user;
  ParallelCheck check([]() -> Result<void> { return {}; }, user);
  CHECK_FALSE(check.work_cancel().requested());
  user.request();
  wait_for(check.work_cancel());
  CHECK(check.wait());
}

TEST_CASE("the work's end waits for the check", "[parallel]") {
  const Cancel user;
  std::atomic<bool> work_done{false};
  ParallelCheck check(
      [&]() -> Result<void> {
        while (!work_done) std::this_thread::yield();
        return fail(Error::corrupt("late"));
      },
      user);
  CHECK_FALSE(check.work_cancel().requested());
  work_done = true;
  CHECK_FALSE(check.wait());
  CHECK(check.elapsed().count() > 0);
}
