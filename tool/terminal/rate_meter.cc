#include "tool/terminal/rate_meter.h"

#include <algorithm>
#include <limits>
#include <vector>

namespace vc::tool {

namespace {

constexpr double kStep = 1;           // seconds between marks
constexpr double kWindow = 10;        // seconds
constexpr double kMostOfUsual = 4.0;  // times

}  // namespace

void RateMeter::start(double seconds, uint64_t done) {
  last_ = {seconds, done};
  marks_.assign(1, last_);
}

void RateMeter::sample(double seconds, uint64_t done) {
  if (marks_.empty()) return start(seconds, done);
  last_ = {seconds, done};
  if (last_.seconds - marks_.back().seconds >= kStep) marks_.push_back(last_);
  while (marks_.size() > 1 && marks_[1].seconds <= last_.seconds - kWindow) marks_.pop_front();
}

double RateMeter::rate_between(const Mark& from, const Mark& to) {
  return static_cast<double>(to.done - std::min(to.done, from.done)) / (to.seconds - from.seconds);
}

std::optional<double> RateMeter::bytes_per_second() const {
  if (marks_.size() < 2) return std::nullopt;
  std::vector<double> rates;
  for (size_t i = 1; i < marks_.size(); ++i)
    rates.push_back(rate_between(marks_[i - 1], marks_[i]));
  const auto usual = rates.begin() + static_cast<std::ptrdiff_t>((rates.size() - 1) / 2);
  std::nth_element(rates.begin(), usual, rates.end());
  // Progress in bursts has many seconds at zero; then there is no usual rate.
  const double most = *usual > 0 ? *usual * kMostOfUsual : std::numeric_limits<double>::infinity();

  double bytes = 0;
  const auto count = [&](const Mark& from, const Mark& to) {
    if (to.seconds > from.seconds)
      bytes += std::min(rate_between(from, to), most) * (to.seconds - from.seconds);
  };
  for (size_t i = 1; i < marks_.size(); ++i) count(marks_[i - 1], marks_[i]);
  count(marks_.back(), last_);
  return bytes / (last_.seconds - marks_.front().seconds);
}

}  // namespace vc::tool
