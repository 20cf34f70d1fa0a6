// Whether writing a disk afresh is worth it.
#pragma once

#include <cstdint>
#include <optional>

#include "base/cancel.h"
#include "base/progress.h"
#include "base/result.h"
#include "copy/copier.h"
#include "inspect/measurement.h"
#include "qcow2/read/chain.h"

namespace vc::optimize {

// The least that a run must gain for the disk to be replaced.
struct GainLimit {
  std::optional<uint64_t> bytes;  // of blocks; nothing: a part of the disk
  double percent = 1;             // of its blocks
  // The user said so: then the order of the image does not count.
  bool said = false;
};

struct Gain {
  uint64_t before = 0;    // what the disk takes now, bytes of blocks
  uint64_t length = 0;    // of its file, bytes; 0: raw, which stays as long as it is
  uint64_t expected = 0;  // what a fresh one would take, bytes: estimated from samples
  uint64_t low = 0;       // between these, with a confidence of 99 %
  uint64_t high = 0;
  // Of the steps from one cluster to the guest's next, how many lead far away in the file, in
  // percent.  0: raw.
  double scattered = 0;

  uint64_t saved() const { return before > expected ? before - expected : 0; }
  // Of `before`.
  double percent() const;
  bool is_worth(const GainLimit& limit) const;
};

// What a copy by `how` will take.  Reads up to `budget` bytes of the source, all of it where a
// backing file is kept, and writes nothing.
Result<inspect::Measurement> measure_result(const copy::CopyOptions& how, uint64_t budget,
                                            Progress& progress, const Cancel& cancel);

// Of a copy that has not been made.  `disk` is the image as it is, `before` and `length` the bytes
// that its file takes in blocks, and from end to end; `how` reads it as it would be copied, with
// what was trimmed as zeros. Reads up to 256 MiB of the source, all of it where a backing file is
// kept, and writes nothing.
Result<Gain> foretell_gain(const copy::CopyOptions& how, const qcow2::Chain& disk, uint64_t before,
                           uint64_t length, Progress& progress, const Cancel& cancel);

}  // namespace vc::optimize
