// Finds the zeros inside a write.
//
// A request is cut where the disk's granules begin: the boundaries are multiples of the granularity
// in disk offsets, not in the buffer.  A granule of which all that lies in the request is zeros
// goes to a zero run, all else is data; equal neighbours are one run.  So at its head and its tail
// a request may give a part of a granule to a zero run.  The layer below finds out for less what
// there is to do than by getting data, which is nothing at all where the disk reads as zeros
// already; and a stream of zeros that is cut into requests anywhere stays one of zeros.
//
// Zeros in many small places must not turn one request into thousands: from the 64th zero run of a
// request on, only those of 64 KiB or more count.  So a request of n bytes becomes at most
// 2 * (64 + n / 64 KiB) + 1 runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace filters {

class ZeroRuns {
 public:
  struct Run {
    uint64_t offset;  // bytes from the start of the disk
    uint64_t length;  // bytes, at least 1
    bool zero;
  };

  // `data` is to be written at `offset`, and outlives the object.  The granularity, in bytes, is a
  // power of two.  Nothing is allocated.
  ZeroRuns(std::span<const std::byte> data, uint64_t offset, uint64_t granularity)
      : data_(data),
        offset_(offset),
        granularity_(granularity),
        end_(offset + data.size()),
        at_(offset) {}

  // The next run, in order of offsets; none at the end.  Reads as much of the buffer as it takes to
  // find where the run ends, each byte once.
  std::optional<Run> next();

 private:
  // Where the granule ends that `at` is in, or the request if that is before.
  uint64_t granule_end(uint64_t at) const;
  bool is_zero(uint64_t begin, uint64_t end) const;
  bool worthwhile(uint64_t begin, uint64_t end) const;

  std::span<const std::byte> data_;
  uint64_t offset_;
  uint64_t granularity_;
  uint64_t end_;
  uint64_t at_;              // all before it has been looked at
  std::optional<Run> zero_;  // found behind the data that was given out last
  unsigned zero_runs_ = 0;
};

}  // namespace filters
