// What was done, and how long each took.
#pragma once

#include "bench/histogram.h"

namespace bench {

// Of one thread, until they are added up.
struct Tally {
  Histogram latency;  // of requests, nanoseconds
  Histogram flushes;  // the same of flushes in between

  void add(const Tally& other) {
    latency.add(other.latency);
    flushes.add(other.flushes);
  }
};

}  // namespace bench
