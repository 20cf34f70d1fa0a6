// Counts and latencies of requests.
#pragma once

#include "bench/histogram.h"

namespace vc::bench {

// Per thread, until they are added up.
struct Tally {
  Histogram latency;  // of requests, nanoseconds
  Histogram flushes;  // of intermediate flushes, nanoseconds

  void add(const Tally& other) {
    latency.add(other.latency);
    flushes.add(other.flushes);
  }
};

}  // namespace vc::bench
