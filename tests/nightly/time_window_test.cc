// The hours in which disks are begun, and the stop at their end.
#include "tool/nightly/time_window.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "tests/catch.h"
#include "tool/terminal/stop_at.h"

using namespace vc;

using tool::TimeWindow;

namespace {

// Sets the time zone while the object lives.
class Zone {
 public:
  explicit Zone(const char* name) {
    if (const char* const it = ::getenv("TZ")) before_ = it;
    had_ = ::getenv("TZ") != nullptr;
    ::setenv("TZ", name, 1);
    ::tzset();
  }
  Zone(const Zone&) = delete;
  Zone& operator=(const Zone&) = delete;
  ~Zone() {
    if (had_)
      ::setenv("TZ", before_.c_str(), 1);
    else
      ::unsetenv("TZ");
    ::tzset();
  }

 private:
  std::string before_;
  bool had_ = false;
};

// Returns a time of 2026, in local time.
time_t at(int month, int day, int hour, int minute, int second = 0) {
  std::tm parts{};
  parts.tm_year = 126;
  parts.tm_mon = month - 1;
  parts.tm_mday = day;
  parts.tm_hour = hour;
  parts.tm_min = minute;
  parts.tm_sec = second;
  parts.tm_isdst = -1;
  return ::mktime(&parts);
}

}  // namespace

TEST_CASE("a time window has a begin and an end", "[nightly]") {
  const Zone zone("UTC");
  const auto day = TimeWindow::parse("01:00-05:30");
  REQUIRE(day);
  CHECK_FALSE(day->contains(at(6, 1, 0, 59, 59)));
  CHECK(day->contains(at(6, 1, 1, 0)));
  CHECK(day->contains(at(6, 1, 5, 29, 59)));
  CHECK_FALSE(day->contains(at(6, 1, 5, 30)));
  CHECK(day->end_after(at(6, 1, 2, 0)) == at(6, 1, 5, 30));
  CHECK(day->end_after(at(6, 1, 5, 30)) == at(6, 2, 5, 30));
  CHECK(day->text() == "01:00-05:30");
}

TEST_CASE("a time window may go over midnight", "[nightly]") {
  const Zone zone("UTC");
  const auto night = TimeWindow::parse("22:15-05:00");
  REQUIRE(night);
  CHECK(night->contains(at(6, 1, 23, 0)));
  CHECK(night->contains(at(6, 1, 0, 0)));
  CHECK(night->contains(at(6, 1, 4, 59)));
  CHECK_FALSE(night->contains(at(6, 1, 5, 0)));
  CHECK_FALSE(night->contains(at(6, 1, 22, 14)));
  CHECK(night->end_after(at(6, 1, 23, 0)) == at(6, 2, 5, 0));
  CHECK(night->end_after(at(6, 1, 1, 0)) == at(6, 1, 5, 0));
  CHECK(night->end_after(at(12, 31, 23, 0)) == at(12, 31, 29, 0));
  const auto until_midnight = TimeWindow::parse("20:00-24:00");
  REQUIRE(until_midnight);
  CHECK(until_midnight->contains(at(6, 1, 23, 59)));
  CHECK_FALSE(until_midnight->contains(at(6, 1, 0, 0)));
  CHECK(until_midnight->end_after(at(6, 1, 21, 0)) == at(6, 2, 0, 0));
}

TEST_CASE("a time window has local time, with daylight saving", "[nightly]") {
  // Clocks go forward on 29 March, from 2:00 to 3:00.
  const Zone zone("CET-1CEST,M3.5.0,M10.5.0/3");
  const auto window = TimeWindow::parse("01:00-05:00");
  REQUIRE(window);
  CHECK(window->end_after(at(3, 29, 1, 0)) - at(3, 29, 1, 0) == 3 * 3600);
  CHECK(window->end_after(at(3, 30, 1, 0)) - at(3, 30, 1, 0) == 4 * 3600);
  CHECK(window->end_after(at(10, 25, 1, 0)) - at(10, 25, 1, 0) == 5 * 3600);
}

TEST_CASE("what is no time window is refused", "[nightly]") {
  for (const char* const text :
       {"", "01:00", "01:00-", "1:00-5:00", "01:00-01:00", "25:00-02:00", "01:60-02:00",
        "24:30-02:00", "01:00-02:00-03:00", "00:00-24:00", "-1:00-02:00", "01.00-02.00"}) {
    CAPTURE(text);
    CHECK_FALSE(TimeWindow::parse(text));
  }
}

TEST_CASE("a run is cancelled at a time of the clock", "[nightly]") {
  Cancel cancel;
  {
    const auto stop = tool::StopAt::start(cancel, ::time(nullptr) + 3600);
    REQUIRE(stop);
    CHECK_FALSE(cancel.requested());
  }
  const auto stop = tool::StopAt::start(cancel, ::time(nullptr) + 1);
  REQUIRE(stop);
  for (int i = 0; i < 300 && !cancel.requested(); ++i) ::usleep(10'000);
  CHECK(cancel.requested());
}
