// The hours of the day in which work may begin.
#pragma once

#include <ctime>
#include <string>

#include "base/result.h"

namespace vc::tool {

class TimeWindow {
 public:
  // Parses "HH:MM-HH:MM", local time. The end is not included. An end that is not after the begin
  // is one of the next day.
  static Result<TimeWindow> parse(const std::string& text);

  bool contains(std::time_t now) const;
  // Returns the next end of the window after `now`.
  std::time_t end_after(std::time_t now) const;
  // Returns "HH:MM-HH:MM".
  std::string text() const;

 private:
  TimeWindow(int begin, int end) : begin_(begin), end_(end) {}

  // Minutes since midnight.
  int begin_;
  int end_;
};

}  // namespace vc::tool
