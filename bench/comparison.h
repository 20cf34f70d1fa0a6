// Two disks under the same load, in turn.
#pragma once

#include <functional>
#include <vector>

#include "base/cancel.h"
#include "base/result.h"
#include "bench/measure.h"

namespace bench {

// Some figures of the same thing.
struct Spread {
  double min = 0;
  double median = 0;
  double max = 0;

  static Spread of(std::vector<double> values);  // at least one
};

struct Comparison {
  struct Round {
    Measurement a;
    Measurement b;
    // How many times as fast as A B is in this round, by throughput.
    double ratio() const { return b.bytes_per_second() / a.bytes_per_second(); }
  };

  enum class Verdict {
    kAFaster,  // in every round, and the slowest round of A beats the fastest of B
    kBFaster,
    kALikely,  // in every round, but rounds differ more than A and B do
    kBLikely,
    kUnclear,  // now one, now the other
  };

  std::vector<Round> rounds;  // at least one

  Spread ratio() const;
  Spread throughput(const Measurement Round::*which) const;  // bytes a second
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
  // A run of each that does not count; not with drop_cache, after which nothing is warm.
  bool warm_up = true;
  std::function<void(uint64_t bytes)> progress = {};  // of all runs so far

  unsigned runs() const { return 2 * (rounds + (warm_up && !drop_cache ? 1 : 0)); }
};

qcow2::Result<Comparison> compare(const ComparisonOptions& options, const copy::Cancel& cancel);

}  // namespace bench
