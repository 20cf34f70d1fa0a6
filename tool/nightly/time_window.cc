#include "tool/nightly/time_window.h"

#include <fmt/format.h>

#include "tool/text/size_text.h"

namespace vc::tool {

namespace {

constexpr int kMinutesADay = 24 * 60;

// Returns the minutes since midnight, or -1 if the text is no time.
int minutes(const std::string& text) {
  if (text.size() != 5 || text[2] != ':') return -1;
  const auto hour = parse_number(text.substr(0, 2), 0, 24);
  const auto minute = parse_number(text.substr(3), 0, 59);
  if (!hour || !minute) return -1;
  const int all = static_cast<int>(*hour) * 60 + static_cast<int>(*minute);
  return all <= kMinutesADay ? all % kMinutesADay : -1;
}

std::tm local(std::time_t time) {
  std::tm parts{};
  ::localtime_r(&time, &parts);
  return parts;
}

}  // namespace

Result<TimeWindow> TimeWindow::parse(const std::string& text) {
  const size_t dash = text.find('-');
  const int begin = minutes(text.substr(0, dash));
  const int end = dash == std::string::npos ? -1 : minutes(text.substr(dash + 1));
  if (begin < 0 || end < 0 || begin == end)
    return fail(
        Error::invalid(fmt::format("'{}' is not a time window, such as 01:00-05:30", text)));
  return TimeWindow(begin, end);
}

bool TimeWindow::contains(std::time_t now) const {
  const std::tm parts = local(now);
  const int minute = parts.tm_hour * 60 + parts.tm_min;
  if (begin_ < end_) return minute >= begin_ && minute < end_;
  return minute >= begin_ || minute < end_;
}

std::time_t TimeWindow::end_after(std::time_t now) const {
  std::tm parts = local(now);
  for (int day = 0;; ++day) {
    std::tm end = parts;
    end.tm_mday += day;
    end.tm_hour = end_ / 60;
    end.tm_min = end_ % 60;
    end.tm_sec = 0;
    // The day of the end may begin or end daylight saving time.
    end.tm_isdst = -1;
    const std::time_t time = std::mktime(&end);
    if (time > now || day > 2) return time;
  }
}

std::string TimeWindow::text() const {
  return fmt::format("{:02}:{:02}-{:02}:{:02}", begin_ / 60, begin_ % 60, end_ / 60, end_ % 60);
}

}  // namespace vc::tool
