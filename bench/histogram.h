// Latency histogram of small size: percentiles with a bounded error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace vc::bench {

// Buckets widen with the value, by at most 1/128 of it: the idea of HDR histograms. Minimum,
// maximum and mean are exact.
class Histogram {
 public:
  // Maximum relative error of percentile(), upwards.
  static constexpr double kError = 1.0 / 128;

  void add(uint64_t value);
  void add(const Histogram& other);

  uint64_t count() const { return count_; }
  // All four return 0 if there are no values.
  uint64_t min() const { return count_ == 0 ? 0 : min_; }
  uint64_t max() const { return max_; }
  double mean() const;
  // Returns a value that at least `percent` (0 … 100) of all values do not exceed: at least the
  // smallest such value, and above it by at most kError.
  uint64_t percentile(double percent) const;

 private:
  std::vector<uint64_t> buckets_;  // up to the bucket of the largest value
  uint64_t count_ = 0;
  uint64_t min_ = UINT64_MAX;
  uint64_t max_ = 0;
  double sum_ = 0;
};

}  // namespace vc::bench
