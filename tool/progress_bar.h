// How far a job is, in one line.  Pure functions and values: nothing here reads a clock or writes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace tool {

struct ProgressState {
  uint64_t done = 0;           // bytes
  uint64_t total = 0;          // bytes
  std::optional<double> rate;  // bytes a second; nothing: not known yet

  // 0 … 100.  A job of nothing is done.
  double percent() const;
};

// The speed of late: an average in which a second counts the less the longer ago it is.
class RateMeter {
 public:
  // `seconds` since the start, never less than at the call before; `done` in bytes.
  void sample(double seconds, uint64_t done);
  // Nothing until there is something to go by.
  std::optional<double> bytes_per_second() const;

 private:
  double last_seconds_ = 0;
  uint64_t last_done_ = 0;
  double rate_ = 0;
  double weight_ = 0;  // of what is known, from 0 to 1: takes out that rate_ began as 0
};

// "0:07", "12:34", "1:02:03".
std::string clock_text(double seconds);

// At most `columns` characters; the parts that do not fit are left out, the percentage last.
std::string bar_line(const ProgressState& state, unsigned columns);

// What `qemu-img -p` writes, so that what reads it reads this: "    (12.34/100%)".
std::string percent_line(const ProgressState& state);

// A JSON object on a line of its own.
std::string json_line(const ProgressState& state);

}  // namespace tool
