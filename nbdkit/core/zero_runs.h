// Finds the zeros in a write.
//
// A request is split at the disk's granules: the boundaries are multiples of the granularity in
// disk offsets, not in the buffer. A granule whose part in the request is all zeros belongs to a
// zero run; everything else is data. Equal neighbours form one run. So a zero run may include a
// partial granule at the start or end of a request. Zeroing costs the layer below less than writing
// data, and nothing where the disk already reads as zeros. A stream of zeros stays zeros wherever
// it is split into requests.
//
// Many small zero runs must not turn one request into thousands: after 63 zero runs in a request,
// only runs of at least 64 KiB count. So a request of n bytes becomes at most 2 * (64 + n / 64 KiB)
// + 1 runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace vc::nbdkit {

class ZeroRuns {
 public:
  struct Run {
    uint64_t offset;  // bytes from the start of the disk
    uint64_t length;  // bytes, at least 1
    bool zero;
  };

  // `data` is the payload of a write at `offset`, and must outlive the object. `granularity`:
  // bytes, a power of two. Allocates no memory.
  ZeroRuns(std::span<const std::byte> data, uint64_t offset, uint64_t granularity)
      : data_(data),
        offset_(offset),
        granularity_(granularity),
        end_(offset + data.size()),
        at_(offset) {}

  // Returns the next run, in order of offsets; nullopt at the end. Reads only as much of the buffer
  // as needed to find the end of the run, each byte once.
  std::optional<Run> next();

 private:
  // Returns the end of the granule that contains `at`, or the end of the request if it comes first.
  uint64_t granule_end(uint64_t at) const;
  bool is_zero(uint64_t begin, uint64_t end) const;
  bool worthwhile(uint64_t begin, uint64_t end) const;

  std::span<const std::byte> data_;
  uint64_t offset_;
  uint64_t granularity_;
  uint64_t end_;
  uint64_t at_;              // everything before is inspected
  std::optional<Run> zero_;  // found after the data run that was returned last
  unsigned zero_runs_ = 0;
};

}  // namespace vc::nbdkit
