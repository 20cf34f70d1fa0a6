#include "nbdkit/core/zero_runs.h"

#include <algorithm>

#include "base/zero_bytes.h"

namespace vc::nbdkit {

namespace {

// This many zero runs of a request may have any length.
constexpr unsigned kAnyLength = 63;
// Later runs have at least this length, which justifies a separate request.
constexpr uint64_t kLong = 64 << 10;

}  // namespace

uint64_t ZeroRuns::granule_end(uint64_t at) const {
  return std::min(end_, (at & ~(granularity_ - 1)) + granularity_);
}

bool ZeroRuns::is_zero(uint64_t begin, uint64_t end) const {
  return vc::is_zero(data_.subspan(begin - offset_, end - begin));
}

bool ZeroRuns::worthwhile(uint64_t begin, uint64_t end) const {
  if (begin == end) return false;
  return zero_runs_ < kAnyLength || end - begin >= kLong;
}

std::optional<ZeroRuns::Run> ZeroRuns::next() {
  if (zero_) {
    const auto run = zero_;
    zero_.reset();
    return run;
  }
  const uint64_t begin = at_;
  while (at_ < end_) {
    const uint64_t zero_begin = at_;
    uint64_t granule = granule_end(at_);
    while (at_ < end_ && is_zero(at_, granule)) {
      at_ = granule;
      granule = granule_end(at_);
    }
    if (worthwhile(zero_begin, at_)) {
      ++zero_runs_;
      const Run zero{zero_begin, at_ - zero_begin, true};
      if (zero_begin == begin) return zero;
      zero_ = zero;
      return Run{begin, zero_begin - begin, false};
    }
    // This granule is not zeros, or its run is too short.
    at_ = granule;
  }
  if (begin == end_) return std::nullopt;
  return Run{begin, end_ - begin, false};
}

}  // namespace vc::nbdkit
