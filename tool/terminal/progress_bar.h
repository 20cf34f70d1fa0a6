// How far a job is, in one line.  Pure functions and values: nothing here reads a clock or writes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/progress.h"

namespace tool {

struct ProgressState {
  copy::Phase phase = copy::Phase::kCopy;
  uint64_t done = 0;              // bytes
  std::optional<uint64_t> total;  // bytes; nothing: nobody knows
  std::optional<double> rate;     // bytes a second; nothing: not known yet

  // 0 … 100.  A job of nothing is done.  Nothing without a total.
  std::optional<double> percent() const;
  // At this rate.  Nothing without one, without a total, or when it is days off.
  std::optional<double> seconds_left() const;
  bool complete() const { return total && done >= *total; }
};

// "0:07", "12:34", "1:02:03".
std::string clock_text(double seconds);

// At most `columns` characters; the parts that do not fit are left out, the percentage last.
std::string bar_line(const ProgressState& state, unsigned columns);

// What `qemu-img -p` writes, so that what reads it reads this: "    (12.34/100%)".  Phases
// that are not the copy stand before the bracket, and without a total there is what is done in it.
std::string percent_line(const ProgressState& state);

// A JSON object on a line of its own.
std::string json_line(const ProgressState& state);

}  // namespace tool
