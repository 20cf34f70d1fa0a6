#include "bench/histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace vc::bench {

namespace {

// The values of a bucket have the highest 1 + kBits bits in common.
constexpr unsigned kBits = 7;
constexpr size_t kSteps = size_t{1} << kBits;

size_t bucket_of(uint64_t value) {
  const unsigned width = static_cast<unsigned>(std::bit_width(value));
  if (width <= kBits + 1) return value;
  const unsigned shift = width - (kBits + 1);
  return shift * kSteps + (value >> shift);
}

uint64_t last_of(size_t bucket) {
  if (bucket < 2 * kSteps) return bucket;
  const size_t shift = bucket / kSteps - 1;
  const uint64_t first = static_cast<uint64_t>(bucket - shift * kSteps) << shift;
  return first + ((uint64_t{1} << shift) - 1);
}

}  // namespace

void Histogram::add(uint64_t value) {
  const size_t bucket = bucket_of(value);
  if (bucket >= buckets_.size()) buckets_.resize(bucket + 1);
  ++buckets_[bucket];
  ++count_;
  min_ = std::min(min_, value);
  max_ = std::max(max_, value);
  sum_ += static_cast<double>(value);
}

void Histogram::add(const Histogram& other) {
  if (buckets_.size() < other.buckets_.size()) buckets_.resize(other.buckets_.size());
  for (size_t i = 0; i < other.buckets_.size(); ++i) buckets_[i] += other.buckets_[i];
  count_ += other.count_;
  min_ = std::min(min_, other.min_);
  max_ = std::max(max_, other.max_);
  sum_ += other.sum_;
}

double Histogram::mean() const {
  return count_ == 0 ? 0 : sum_ / static_cast<double>(count_);
}

uint64_t Histogram::percentile(double percent) const {
  if (count_ == 0) return 0;
  const double exact = std::ceil(percent / 100 * static_cast<double>(count_));
  const uint64_t wanted = std::clamp<uint64_t>(static_cast<uint64_t>(exact), 1, count_);
  uint64_t seen = 0;
  for (size_t i = 0; i < buckets_.size(); ++i) {
    seen += buckets_[i];
    if (seen >= wanted) return std::clamp(last_of(i), min_, max_);
  }
  return max_;
}

}  // namespace vc::bench
