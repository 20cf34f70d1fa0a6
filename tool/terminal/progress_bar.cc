#include "tool/terminal/progress_bar.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "tool/text/size_text.h"

namespace vc::tool {

namespace {

constexpr unsigned kMinBar = 10;  // columns between the brackets; fewer are useless
constexpr double kLongestTimeLeft = 100 * 3600;

std::string draw_bar(double percent, size_t width) {
  const auto filled = static_cast<size_t>(percent / 100 * static_cast<double>(width));
  std::string bar(std::min(filled, width), '=');
  if (bar.size() < width) bar += '>';
  bar.resize(width, ' ');
  return bar;
}

std::string rate_text(double rate) {
  return fmt::format("{:>9}/s", human_size(static_cast<uint64_t>(rate)));
}

// The copy phase has no label.
std::string label(const ProgressState& state) {
  if (state.phase == Phase::kCopy) return "";
  return to_string(state.phase) + std::string(" ");
}

// Returns the first of the texts, ordered by decreasing length, that fits.
std::string fitting(std::initializer_list<std::string> texts, unsigned columns) {
  for (const std::string& text : texts)
    if (text.size() <= columns) return text;
  return "";
}

}  // namespace

std::optional<double> ProgressState::percent() const {
  if (!total) return std::nullopt;
  if (*total == 0) return 100;
  return std::min(100.0, static_cast<double>(done) * 100 / static_cast<double>(*total));
}

std::optional<double> ProgressState::seconds_left() const {
  if (!total || !rate) return std::nullopt;
  const double left = static_cast<double>(*total - std::min(done, *total)) / std::max(*rate, 1e-9);
  return left < kLongestTimeLeft ? std::optional(left) : std::nullopt;
}

std::string clock_text(double seconds) {
  const auto whole = static_cast<uint64_t>(std::llround(std::max(0.0, seconds)));
  if (whole < 3600) return fmt::format("{}:{:02}", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

std::string bar_line(const ProgressState& state, unsigned columns) {
  if (!state.total) {
    const std::string done = fmt::format("{:>9}", human_size(state.done));
    const std::string speed = state.rate ? "  " + rate_text(*state.rate) : "";
    return fitting({label(state) + done + speed, done + speed, done}, columns);
  }
  // Rounded down, so that 100 % is shown only at the end.
  const double percent = *state.percent();
  const std::string number = fmt::format("{:5.1f}%", std::floor(percent * 10) / 10);
  std::string speed;
  if (state.rate) {
    const auto left = state.seconds_left();
    speed = fmt::format("  {}  {:>7} left", rate_text(*state.rate), left ? clock_text(*left) : "?");
  }
  const auto with_bar = [&](const std::string& front, const std::string& back) {
    const size_t around = front.size() + 3 + back.size();  // " [" and "]"
    const size_t bar = std::max<size_t>(kMinBar, columns - std::min<size_t>(columns, around));
    return fmt::format("{} [{}]{}", front, draw_bar(percent, bar), back);
  };
  const std::string labelled = label(state) + number;
  return fitting(
      {with_bar(labelled, speed), with_bar(labelled, ""), with_bar(number, ""), labelled, number},
      columns);
}

std::string percent_line(const ProgressState& state) {
  const auto percent = state.percent();
  if (!percent) return fmt::format("    {}({})", label(state), human_size(state.done));
  return fmt::format("    {}({:3.2f}/100%)", label(state), std::floor(*percent * 100) / 100);
}

std::string json_line(const ProgressState& state) {
  nlohmann::ordered_json line;
  line["phase"] = to_string(state.phase);
  if (const auto percent = state.percent()) line["percent"] = std::floor(*percent * 100) / 100;
  line["done"] = state.done;
  if (state.total) line["total"] = *state.total;
  if (state.rate) line["rate"] = static_cast<uint64_t>(*state.rate);
  if (const auto left = state.seconds_left())
    line["seconds_left"] = static_cast<uint64_t>(std::ceil(*left));
  return line.dump();
}

}  // namespace vc::tool
