#include "tool/terminal/progress_painter.h"

#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

#include "tests/catch_text.h"
#include "tool/terminal/progress_display.h"

using namespace vc;

using nlohmann::json;
using tool::Manner;
using tool::ProgressPainter;
using Form = ProgressPainter::Form;

namespace {

class FakeTerminal final : public ProgressPainter::Screen {
 public:
  unsigned columns() override { return width; }
  void write(const std::string& text) override {
    written += text;
    for (const char it : text) {
      if (it == '\r') {
        cursor = 0;
      } else {
        line.resize(std::max(line.size(), cursor + 1), ' ');
        line[cursor++] = it;
        widest = std::max(widest, cursor);
      }
    }
  }
  // Returns the visible text.
  std::string seen() const { return line.substr(0, line.find_last_not_of(' ') + 1); }

  unsigned width = 80;
  std::string written;
  std::string line;
  size_t cursor = 0;
  size_t widest = 0;
};

ProgressPainter::Figures figures(uint64_t done, std::optional<uint64_t> total,
                                 Phase phase = Phase::kCopy) {
  ProgressPainter::Figures it;
  it.phase = phase;
  it.done = done;
  it.total = total;
  return it;
}

std::vector<json> objects(const std::string& text) {
  std::vector<json> all;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) all.push_back(json::parse(line));
  return all;
}

}  // namespace

TEST_CASE("the bar is drawn in place, and removed at the end", "[progress_painter]") {
  FakeTerminal terminal;
  ProgressPainter painter(Form::kBar, terminal, 0);
  painter.paint(0, figures(0, 1000 << 20));
  CHECK_THAT(terminal.seen(), Catch::StartsWith("  0.0% [>   ") && Catch::EndsWith(" ]"));
  CHECK(terminal.widest == 79);
  for (int i = 1; i <= 20; ++i) painter.paint(0.1 * i, figures(uint64_t(i) << 20, 1000 << 20));
  CHECK_THAT(terminal.seen(),
             Catch::StartsWith("  2.0% [>   ") && Catch::EndsWith("]     10 MiB/s     1:38 left"));
  CHECK(terminal.cursor == 0);
  CHECK(terminal.widest == 79);
  CHECK(terminal.written.find('\n') == std::string::npos);

  // The window becomes smaller: no line may be wider.
  terminal.width = 40;
  terminal.widest = 0;
  painter.paint(2.1, figures(21 << 20, 1000 << 20));
  CHECK(terminal.widest == 39);
  painter.clear();
  CHECK(terminal.line.substr(0, 39) == std::string(39, ' '));
  const std::string written = terminal.written;
  painter.clear();
  CHECK(terminal.written == written);
}

TEST_CASE("no bar is drawn on a terminal without width", "[progress_painter]") {
  for (const unsigned width : {0u, 1u, 2u, 7u}) {
    FakeTerminal terminal;
    terminal.width = width;
    ProgressPainter painter(Form::kBar, terminal, 0);
    painter.paint(0, figures(5, 10));
    CHECK(terminal.widest < std::max(width, 1u));
  }
}

TEST_CASE("a later phase begins at 0, and has no rate at first", "[progress_painter]") {
  FakeTerminal terminal;
  ProgressPainter painter(Form::kBar, terminal, 0);
  for (int i = 0; i <= 20; ++i) painter.paint(0.1 * i, figures(uint64_t(i) << 20, 20 << 20));
  CHECK_THAT(terminal.seen(), Catch::EndsWith("] " + std::string("    10 MiB/s     0:00 left")));
  painter.end_phase(2.1, figures(20 << 20, 20 << 20));
  painter.paint(2.2, figures(1 << 20, 20 << 20, Phase::kVerify));
  CHECK_THAT(terminal.seen(), Catch::StartsWith("verify   5.0% [===>") && Catch::EndsWith("]"));
  painter.paint(3.3, figures(12 << 20, 20 << 20, Phase::kVerify));
  CHECK_THAT(terminal.seen(), Catch::EndsWith("]     10 MiB/s     0:01 left"));
}

TEST_CASE("a short job shows no bar", "[progress_painter]") {
  FakeTerminal terminal;
  ProgressPainter painter(Form::kBar, terminal, 1);
  painter.paint(0.1, figures(0, 100));
  painter.paint(0.9, figures(90, 100));
  CHECK(terminal.written.empty());
  painter.paint(1.0, figures(91, 100));
  CHECK_THAT(terminal.seen(), Catch::StartsWith(" 91.0% ["));
}

TEST_CASE("figures come at each per cent, and at the end", "[progress_painter]") {
  FakeTerminal terminal;
  ProgressPainter painter(Form::kPercent, terminal, 0);
  for (int i = 0; i < 1000; ++i) painter.paint(0.1 * i, figures(uint64_t(i), 10000));
  CHECK(std::count(terminal.written.begin(), terminal.written.end(), '\r') == 10);
  CHECK_THAT(terminal.written,
             Catch::StartsWith("    (0.00/100%)\r    (1.00/100%)\r    (2.00/100%)\r"));
  painter.end_phase(100, figures(10000, 10000));
  CHECK_THAT(terminal.written, Catch::EndsWith("\r    (9.00/100%)\r    (100.00/100%)\r\n"));
  painter.clear();
  CHECK_THAT(terminal.written, Catch::EndsWith("(100.00/100%)\r\n"));

  // The complete figure is shown only once.
  painter.paint(101, figures(10000, 10000, Phase::kVerify));
  painter.end_phase(102, figures(10000, 10000, Phase::kVerify));
  CHECK_THAT(terminal.written,
             Catch::EndsWith("    (100.00/100%)\r\n    verify (100.00/100%)\r\n"));
}

TEST_CASE("an interrupted job ends its line of figures", "[progress_painter]") {
  FakeTerminal terminal;
  ProgressPainter painter(Form::kPercent, terminal, 0);
  painter.paint(0, figures(1, 4));
  painter.clear();
  CHECK(terminal.written == "    (25.00/100%)\r\n");
}

TEST_CASE("JSON progress has a few objects a second, and the last one says 100 %",
          "[progress_painter]") {
  FakeTerminal terminal;
  ProgressPainter painter(Form::kJson, terminal, 0);
  for (int i = 0; i <= 100; ++i) painter.paint(0.1 * i, figures(uint64_t(i) * 10, 2000));
  const auto all = objects(terminal.written);
  CHECK(all.size() > 10);
  CHECK(all.size() <= 41);
  CHECK(all[0] == json{{"phase", "copy"}, {"percent", 0.0}, {"done", 0}, {"total", 2000}});
  for (const json& it : all) CHECK(it.contains("seconds_left") == it.contains("rate"));
  CHECK(all.back()["rate"] == 100);
  CHECK(all.back()["seconds_left"].get<int>() == Approx(10).margin(1));

  terminal.written.clear();
  painter.paint(10.15, figures(2000, 2000));  // at once, although the last was just before
  CHECK(objects(terminal.written).size() == 1);
  painter.paint(20, figures(2000, 2000));
  painter.end_phase(21, figures(2000, 2000));
  painter.clear();
  REQUIRE(objects(terminal.written).size() == 1);
  CHECK(objects(terminal.written)[0]["percent"] == 100.0);

  terminal.written.clear();
  painter.paint(22, figures(5, 10, Phase::kVerify));
  painter.end_phase(22.1, figures(10, 10, Phase::kVerify));
  const auto verify = objects(terminal.written);
  REQUIRE(verify.size() == 2);
  CHECK(verify[1] == json{{"phase", "verify"}, {"percent", 100.0}, {"done", 10}, {"total", 10}});
}

TEST_CASE("progress of a pipe is shown, and its total when it is known", "[progress_painter]") {
  FakeTerminal terminal;
  SECTION("JSON") {
    ProgressPainter painter(Form::kJson, terminal, 0);
    for (int i = 0; i <= 20; ++i) painter.paint(0.1 * i, figures(uint64_t(i) * 10, {}));
    painter.end_phase(2.1, figures(210, 210));
    const auto all = objects(terminal.written);
    CHECK(all.size() > 4);
    for (size_t i = 0; i + 1 < all.size(); ++i) {
      CHECK_FALSE(all[i].contains("total"));
      CHECK_FALSE(all[i].contains("percent"));
      CHECK_FALSE(all[i].contains("seconds_left"));
    }
    CHECK(all.back()["total"] == 210);
    CHECK(all.back()["percent"] == 100.0);
  }
  SECTION("figures") {
    ProgressPainter painter(Form::kPercent, terminal, 0);
    painter.paint(0, figures(0, {}));
    painter.paint(0.1, figures(1, {}));
    painter.paint(0.3, figures(2048, {}));
    painter.end_phase(0.4, figures(4096, 4096));
    CHECK(terminal.written == "    (0 B)\r    (2 KiB)\r    (100.00/100%)\r\n");
  }
}

TEST_CASE("the kind of progress depends on the options and the terminal", "[progress_painter]") {
  using How = Manner::Progress;
  const auto form = [](How how, bool quiet, bool terminal) {
    Manner manner;
    manner.progress = how;
    manner.quiet = quiet;
    return tool::progress_form(manner, terminal);
  };
  CHECK(form(How::kAuto, false, true) == Form::kBar);
  CHECK_FALSE(form(How::kAuto, false, false));
  CHECK_FALSE(form(How::kAuto, true, true));
  CHECK(form(How::kBar, true, true) == Form::kBar);
  CHECK(form(How::kBar, false, false) == Form::kPercent);
  CHECK(form(How::kJson, true, true) == Form::kJson);
  CHECK(form(How::kJson, false, false) == Form::kJson);
  CHECK_FALSE(form(How::kNone, false, true));
}
