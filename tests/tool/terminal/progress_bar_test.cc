#include "tool/terminal/progress_bar.h"

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

TEST_CASE("the bar is never wider than the terminal", "[progress_bar]") {
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

TEST_CASE("100 % is shown only when the job is complete", "[progress_bar]") {
  const uint64_t total = uint64_t{20} << 40;
  CHECK_THAT(bar_line(state(total - 1, total), 40), Catch::StartsWith(" 99.9%"));
  CHECK(percent_line(state(total - 1, total)) == "    (99.99/100%)");
  CHECK(percent_line(state(total, total)) == "    (100.00/100%)");
  CHECK(percent_line(state(0, 0)) == "    (100.00/100%)");
  CHECK(percent_line(state(1234, 10000)) == "    (12.34/100%)");
  // More than the total is shown as 100 %.
  CHECK(percent_line(state(total + 1, total)) == "    (100.00/100%)");
}

TEST_CASE("JSON lines have the exact figures", "[progress_bar]") {
  const auto json = nlohmann::json::parse(json_line(state(1, uint64_t{1} << 62, 5.5)));
  CHECK(json["phase"] == "copy");
  CHECK(json["done"] == 1);
  CHECK(json["total"] == uint64_t{1} << 62);
  CHECK(json["percent"] == 0.0);
  CHECK(json["rate"] == 5);
  // A remaining time of billions of years is not shown.
  CHECK_FALSE(json.contains("seconds_left"));
  CHECK(json_line(state(25, 100, 10)) ==
        "{\"phase\":\"copy\",\"percent\":25.0,\"done\":25,\"total\":100,\"rate\":10,"
        "\"seconds_left\":8}");
  CHECK(json_line(state(1, 2)) == "{\"phase\":\"copy\",\"percent\":50.0,\"done\":1,\"total\":2}");
  CHECK(json_line(state(2, 2, 1)) ==
        "{\"phase\":\"copy\",\"percent\":100.0,\"done\":2,\"total\":2,\"rate\":1,"
        "\"seconds_left\":0}");
}

TEST_CASE("without a total, the completed amount is shown", "[progress_bar]") {
  auto it = state(3 << 19, 0);
  it.total.reset();
  CHECK(bar_line(it, 60) == "  1.5 MiB");
  CHECK(percent_line(it) == "    (1.5 MiB)");
  CHECK(json_line(it) == "{\"phase\":\"copy\",\"done\":1572864}");
  it.rate = 1 << 20;
  CHECK(bar_line(it, 60) == "  1.5 MiB      1 MiB/s");
  CHECK(bar_line(it, 20) == "  1.5 MiB");
  CHECK(bar_line(it, 5).empty());
  CHECK(json_line(it) == "{\"phase\":\"copy\",\"done\":1572864,\"rate\":1048576}");
}

TEST_CASE("later phases are shown with their names", "[progress_bar]") {
  auto it = state(50, 100);
  it.phase = Phase::kVerify;
  CHECK(bar_line(it, 28) == "verify  50.0% [======>     ]");
  CHECK(bar_line(it, 24) == " 50.0% [=======>       ]");
  CHECK(bar_line(it, 19) == " 50.0% [=====>    ]");
  CHECK(bar_line(it, 13) == "verify  50.0%");
  CHECK(bar_line(it, 12) == " 50.0%");
  CHECK(percent_line(it) == "    verify (50.00/100%)");
  CHECK(nlohmann::json::parse(json_line(it))["phase"] == "verify");
}

TEST_CASE("no remaining time is shown without a total", "[progress_bar]") {
  CHECK(state(0, 100, 10).seconds_left() == 10.0);
  CHECK_FALSE(state(0, 100).seconds_left());
  CHECK_FALSE(state(0, 100, 0).seconds_left());
  CHECK(state(100, 100, 0).seconds_left() == 0.0);
  CHECK_THAT(bar_line(state(0, 100, 0), 60), Catch::EndsWith("        0 B/s        ? left"));
}

TEST_CASE("times are formatted as on a clock", "[progress_bar]") {
  CHECK(clock_text(0) == "0:00");
  CHECK(clock_text(7.4) == "0:07");
  CHECK(clock_text(59.6) == "1:00");
  CHECK(clock_text(754) == "12:34");
  CHECK(clock_text(3723) == "1:02:03");
  CHECK(clock_text(-1) == "0:00");
}
