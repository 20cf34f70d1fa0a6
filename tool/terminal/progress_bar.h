// Formats a job's progress as one line. Pure functions and values, without clock or output.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/progress.h"

namespace vc::tool {

struct ProgressState {
  Phase phase = Phase::kCopy;
  uint64_t done = 0;              // bytes
  std::optional<uint64_t> total;  // bytes; nullopt: unknown
  std::optional<double> rate;     // bytes per second; nullopt: not known yet

  // Returns 0 … 100; an empty job is complete. Returns nullopt without a total.
  std::optional<double> percent() const;
  // Returns the remaining seconds at the current rate. Returns nullopt without a rate or a total,
  // or if days remain.
  std::optional<double> seconds_left() const;
  bool complete() const { return total && done >= *total; }
};

// Formats "0:07", "12:34", "1:02:03".
std::string clock_text(double seconds);

// Returns at most `columns` characters. Omits parts that do not fit; the percentage is omitted
// last.
std::string bar_line(const ProgressState& state, unsigned columns);

// Returns the line of `qemu-img -p`, for programs that parse it: "    (12.34/100%)". Phases other
// than the copy precede the bracket. Without a total, shows the amount done.
std::string percent_line(const ProgressState& state);

// Returns a JSON object on a line of its own.
std::string json_line(const ProgressState& state);

}  // namespace vc::tool
