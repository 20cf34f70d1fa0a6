// The recent speed of a job.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>

namespace vc::tool {

// The mean of the last ten seconds, in which no second counts more than four times the usual rate:
// skipping a hole of a terabyte takes no time, and says nothing about the data after it.
class RateMeter {
 public:
  // Resets the meter. `seconds` of any clock, `done` in bytes.
  void start(double seconds, uint64_t done);
  // Adds a sample. Neither value may decrease.
  void sample(double seconds, uint64_t done);

  // Returns nullopt in the first second, for lack of samples.
  std::optional<double> bytes_per_second() const;

 private:
  struct Mark {
    double seconds = 0;
    uint64_t done = 0;
  };
  static double rate_between(const Mark& from, const Mark& to);

  // at least a second apart; the first is ten seconds old or older, if possible
  std::deque<Mark> marks_;
  Mark last_;
};

}  // namespace vc::tool
