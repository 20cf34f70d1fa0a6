// Estimates whether it is worthwhile to rewrite a disk.
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

// Minimum gain for which a disk is replaced. With both limits, both must be reached.
struct GainLimit {
  std::optional<uint64_t> bytes;  // bytes of blocks; nullopt: no limit in bytes
  double percent = 1;             // of the disk's blocks; 0: no limit in percent
  // The user set the limit: then the order of the image does not count.
  bool said = false;
};

struct Gain {
  uint64_t before = 0;    // size of the disk now, bytes of blocks
  uint64_t length = 0;    // length of its file, bytes; 0: raw, whose length never changes
  uint64_t expected = 0;  // estimated size of a fresh image, bytes
  uint64_t low = 0;       // limits of `expected`, with 99 % confidence
  uint64_t high = 0;
  // Share of the steps from one guest cluster to the next that lead far away in the file, in
  // percent. 0: raw.
  double scattered = 0;

  uint64_t saved() const { return before > expected ? before - expected : 0; }
  // Returns the gain in percent of `before`.
  double percent() const;
  bool is_worth(const GainLimit& limit) const;
};

// Estimates the result of the copy `how`. Reads up to `budget` bytes of the source, but the whole
// source if the result keeps a backing file. Writes nothing.
Result<inspect::Measurement> measure_result(const copy::CopyOptions& how, uint64_t budget,
                                            Progress& progress, const Cancel& cancel);

// Estimates the gain of a copy. `disk` is the present image; `before` is the size of its blocks,
// and `length` of its file, both in bytes. `how` must read the disk as the copy will, with trimmed
// ranges as zeros. Reads up to 256 MiB of the source, but the whole source if the result keeps a
// backing file. Writes nothing.
Result<Gain> predict_gain(const copy::CopyOptions& how, const qcow2::Chain& disk, uint64_t before,
                          uint64_t length, Progress& progress, const Cancel& cancel);

}  // namespace vc::optimize
