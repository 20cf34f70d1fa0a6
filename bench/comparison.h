// Compares two disks under the same load, in turn.
#pragma once

#include <functional>
#include <vector>

#include "base/cancel.h"
#include "base/result.h"
#include "bench/measure.h"

namespace vc::bench {

// Spread of repeated measurements.
struct Spread {
  double min = 0;
  double median = 0;
  double max = 0;

  static Spread of(std::vector<double> values);  // `values` must not be empty
};

struct Comparison {
  struct Round {
    Measurement a;
    Measurement b;
    // Throughput of B in this round relative to A.
    double ratio() const { return b.bytes_per_second() / a.bytes_per_second(); }
  };

  enum class Verdict {
    kAFaster,  // in every round, and A's slowest round beats B's fastest
    kBFaster,
    kALikely,  // in every round, but rounds vary more than A and B differ
    kBLikely,
    kUnclear,  // neither wins every round
  };

  std::vector<Round> rounds;  // at least one

  Spread ratio() const;
  Spread throughput(const Measurement Round::*which) const;  // bytes per second
  Tally tally(Measurement Round::*which) const;              // of all rounds
  unsigned rounds_won_by_b() const;
  Verdict verdict() const;
};

struct ComparisonOptions {
  DeviceName a;
  DeviceName b;
  Load load;
  unsigned rounds = 5;
  bool drop_cache = false;
  // One uncounted run of each disk first. Ignored with drop_cache, which leaves no cache warm.
  bool warm_up = true;
  std::function<void(uint64_t bytes)> progress = {};  // total of all runs so far

  unsigned runs() const { return 2 * (rounds + (warm_up && !drop_cache ? 1 : 0)); }
};

Result<Comparison> compare(const ComparisonOptions& options, const Cancel& cancel);

}  // namespace vc::bench
