// How long things took, in little memory: percentiles with a known error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace bench {

// Counts values in buckets that get wider with the value, never by more than 1/128 of it: the idea
// of the HDR histograms.  The smallest, the largest and the mean are exact.
class Histogram {
 public:
  // What percentile () may be too high by, at most, as a part of the value.
  static constexpr double kError = 1.0 / 128;

  void add(uint64_t value);
  void add(const Histogram& other);

  uint64_t count() const { return count_; }
  // 0 if there are none, all four.
  uint64_t min() const { return count_ == 0 ? 0 : min_; }
  uint64_t max() const { return max_; }
  double mean() const;
  // A value that at least `percent` (0 … 100) of all are not greater than: never below the smallest
  // such value, and above it by no more than kError.
  uint64_t percentile(double percent) const;

 private:
  std::vector<uint64_t> buckets_;  // up to that of the largest value
  uint64_t count_ = 0;
  uint64_t min_ = UINT64_MAX;
  uint64_t max_ = 0;
  double sum_ = 0;
};

}  // namespace bench
