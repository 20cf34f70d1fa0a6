// Random choices that depend only on a seed, on every machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace vc::support {

// SplitMix64: S. Vigna's public-domain generator. The distributions of <random> differ between
// libraries; these do not.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  // Returns 0 … n - 1. `n` must be at least 1. The bias does not matter for tests.
  uint64_t below(uint64_t n) { return next() % n; }
  // Returns low … high, both included.
  uint64_t between(uint64_t low, uint64_t high) { return low + below(high - low + 1); }
  bool chance(unsigned percent) { return below(100) < percent; }

  template <typename T>
  const T& pick(const std::vector<T>& from) {
    return from[below(from.size())];
  }

  void fill(std::span<std::byte> bytes);

 private:
  uint64_t state_;
};

// Returns the seed of this run: VIRT_COMPACT_SEED, or a new one for each process. Image number i of
// a test is made from seed + i. So a failure names a seed whose first image is the failing one.
uint64_t base_seed();

// Returns how many random images a test makes: VIRT_COMPACT_ITERATIONS, or else `otherwise`, but at
// most VIRT_COMPACT_ITERATIONS_AT_MOST.
uint64_t iterations(uint64_t otherwise);

// Returns whether a test of random inputs needs another one: it has made `made` of `wanted`, or has
// not `seen` yet what it must see at least once.  Gives up after many inputs without it.
bool more_iterations(uint64_t made, uint64_t wanted, bool seen);

}  // namespace vc::support
