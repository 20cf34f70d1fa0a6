#include "tool/progress_bar.h"

#include <nlohmann/json.hpp>

#include "tests/catch_text.h"

using namespace tool;

namespace {

ProgressState state(uint64_t done, uint64_t total, std::optional<double> rate = {}) {
  ProgressState it;
  it.done = done;
  it.total = total;
  it.rate = rate;
  return it;
}

}  // namespace

TEST_CASE("the bar fills its line", "[progress_bar]") {
  CHECK(bar_line(state(0, 100), 20) == "  0.0% [>          ]");
  CHECK(bar_line(state(50, 100), 20) == " 50.0% [=====>     ]");
  CHECK(bar_line(state(100, 100), 20) == "100.0% [===========]");
  CHECK(bar_line(state(1 << 20, 4 << 20, 1 << 20), 60) ==
        " 25.0% [======>                 ]      1 MiB/s     0:03 left");
}

TEST_CASE("the bar never takes more columns than there are", "[progress_bar]") {
  for (unsigned columns = 0; columns < 200; ++columns)
    for (const uint64_t done : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 40, uint64_t{1} << 62})
      for (const auto rate : {std::optional<double>(), std::optional<double>(0.0),
                              std::optional<double>(1e18), std::optional<double>(123456789.0)}) {
        CAPTURE(columns, done);
        const std::string line = bar_line(state(done, uint64_t{1} << 62, rate), columns);
        CHECK(line.size() <= columns);
        CHECK(line.find('%') == (columns >= 6 ? 5 : std::string::npos));
      }
}

TEST_CASE("all is done when it is, and not before", "[progress_bar]") {
  const uint64_t total = uint64_t{20} << 40;
  CHECK_THAT(bar_line(state(total - 1, total), 40), Catch::StartsWith(" 99.9%"));
  CHECK(percent_line(state(total - 1, total)) == "    (99.99/100%)");
  CHECK(percent_line(state(total, total)) == "    (100.00/100%)");
  CHECK(percent_line(state(0, 0)) == "    (100.00/100%)");
  CHECK(percent_line(state(1234, 10000)) == "    (12.34/100%)");
  // Both figures are not read at one time.
  CHECK(percent_line(state(total + 1, total)) == "    (100.00/100%)");
}

TEST_CASE("JSON lines have the exact figures", "[progress_bar]") {
  const auto json = nlohmann::json::parse(json_line(state(1, uint64_t{1} << 62, 5.5)));
  CHECK(json["done"] == 1);
  CHECK(json["total"] == uint64_t{1} << 62);
  CHECK(json["percent"] == 0.0);
  CHECK(json["bytes-per-second"] == 5);
  CHECK_FALSE(nlohmann::json::parse(json_line(state(1, 2))).contains("bytes-per-second"));
}

TEST_CASE("time is told as on a clock", "[progress_bar]") {
  CHECK(clock_text(0) == "0:00");
  CHECK(clock_text(7.4) == "0:07");
  CHECK(clock_text(59.6) == "1:00");
  CHECK(clock_text(754) == "12:34");
  CHECK(clock_text(3723) == "1:02:03");
  CHECK(clock_text(-1) == "0:00");
}

TEST_CASE("the rate follows what happens now", "[progress_bar]") {
  RateMeter meter;
  CHECK_FALSE(meter.bytes_per_second());
  meter.sample(0, 0);
  CHECK_FALSE(meter.bytes_per_second());
  meter.sample(0.1, 10);
  CHECK(*meter.bytes_per_second() == Approx(100));
  double now = 0.1;
  uint64_t done = 10;
  for (int i = 0; i < 600; ++i) meter.sample(now += 0.1, done += 50);
  CHECK(*meter.bytes_per_second() == Approx(500).epsilon(0.01));
  // It stops: the rate falls, slowly.
  meter.sample(now += 1, done);
  CHECK(*meter.bytes_per_second() < 450);
  CHECK(*meter.bytes_per_second() > 350);
  for (int i = 0; i < 60; ++i) meter.sample(now += 1, done);
  CHECK(*meter.bytes_per_second() < 1);
}
