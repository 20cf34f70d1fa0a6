#include "tool/progress_bar.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "tool/size_text.h"

namespace tool {

namespace {

constexpr double kMemorySeconds = 5;  // after this long a sample counts 1/e of a new one
constexpr unsigned kMinBar = 10;      // columns between the brackets; less shows nothing
constexpr double kLongestTimeLeft = 100 * 3600;

std::string draw_bar(double percent, size_t width) {
  const auto filled = static_cast<size_t>(percent / 100 * static_cast<double>(width));
  std::string bar(std::min(filled, width), '=');
  if (bar.size() < width) bar += '>';
  bar.resize(width, ' ');
  return bar;
}

}  // namespace

double ProgressState::percent() const {
  if (total == 0) return 100;
  return std::min(100.0, static_cast<double>(done) * 100 / static_cast<double>(total));
}

void RateMeter::sample(double seconds, uint64_t done) {
  const double passed = seconds - last_seconds_;
  if (passed <= 0) return;
  const double keep = std::exp(-passed / kMemorySeconds);
  const double current = static_cast<double>(done - std::min(done, last_done_)) / passed;
  rate_ = rate_ * keep + current * (1 - keep);
  weight_ = weight_ * keep + (1 - keep);
  last_seconds_ = seconds;
  last_done_ = done;
}

std::optional<double> RateMeter::bytes_per_second() const {
  if (weight_ <= 0) return std::nullopt;
  return rate_ / weight_;
}

std::string clock_text(double seconds) {
  const auto whole = static_cast<uint64_t>(std::max(0.0, seconds) + 0.5);
  if (whole < 3600) return fmt::format("{}:{:02}", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

std::string bar_line(const ProgressState& state, unsigned columns) {
  // Rounded down: 100 % is said when it is true.
  std::string percent = fmt::format("{:5.1f}%", std::floor(state.percent() * 10) / 10);
  std::string speed;
  if (state.rate) {
    const double left = static_cast<double>(state.total - std::min(state.done, state.total)) /
                        std::max(*state.rate, 1e-9);
    speed = fmt::format("  {:>9}/s  {:>7} left", human_size(static_cast<uint64_t>(*state.rate)),
                        left < kLongestTimeLeft ? clock_text(left) : "?");
  }
  const size_t around_bar = percent.size() + 3;  // " [" and "]"
  if (columns >= around_bar + speed.size() + kMinBar)
    return fmt::format("{} [{}]{}", percent,
                       draw_bar(state.percent(), columns - around_bar - speed.size()), speed);
  if (columns >= around_bar + kMinBar)
    return fmt::format("{} [{}]", percent, draw_bar(state.percent(), columns - around_bar));
  return columns >= percent.size() ? percent : std::string();
}

std::string percent_line(const ProgressState& state) {
  return fmt::format("    ({:3.2f}/100%)", std::floor(state.percent() * 100) / 100);
}

std::string json_line(const ProgressState& state) {
  nlohmann::ordered_json line;
  line["percent"] = std::floor(state.percent() * 100) / 100;
  line["done"] = state.done;
  line["total"] = state.total;
  if (state.rate) line["bytes-per-second"] = static_cast<uint64_t>(*state.rate);
  return line.dump();
}

}  // namespace tool
