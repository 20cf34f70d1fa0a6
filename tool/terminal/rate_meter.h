// How fast a job goes of late.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>

namespace tool {

// The mean of the last ten seconds, in which a second counts no more than four times the usual one:
// to pass over a hole of a terabyte takes no time, and says nothing about the data behind it.
class RateMeter {
 public:
  // Forgets all that was before.  `seconds` of any clock, `done` in bytes.
  void start(double seconds, uint64_t done);
  // Neither is less than at the call before.
  void sample(double seconds, uint64_t done);

  // Nothing in the first second: there is too little to go by.
  std::optional<double> bytes_per_second() const;

 private:
  struct Mark {
    double seconds = 0;
    uint64_t done = 0;
  };
  static double rate_between(const Mark& from, const Mark& to);

  std::deque<Mark> marks_;  // a second apart or more; the first ten seconds ago or more, if any is
  Mark last_;
};

}  // namespace tool
