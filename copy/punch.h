// Compaction in place: zeros that a server keeps as data are given back to its storage.
#pragma once

#include <chrono>
#include <cstdint>

#include "base/cancel.h"
#include "base/progress.h"
#include "base/result.h"
#include "nbd/target.h"
#include "nbd/tuning.h"

namespace copy {

struct PunchOptions {
  NbdTarget target;
  NbdTuning nbd;
  // Zeros are looked for in blocks of this many bytes, a power of two, 512 to 2 MiB; 0: of the size
  // that the server prefers.
  uint64_t unit = 0;
  bool dry_run = false;  // free nothing: `zero` says what would be freed
};

struct PunchSummary {
  uint64_t disk_size = 0;  // bytes
  uint64_t unit = 0;       // bytes
  uint64_t scanned = 0;    // bytes that the server called data, and that were read
  uint64_t zero = 0;       // of these, bytes in blocks of zeros
  uint64_t punched = 0;    // of these, bytes that the server was asked to free, and said yes
  std::chrono::duration<double> elapsed{};
};

// Reads what the server calls data, and frees what is zeros.  What the disk reads as does not
// change, so it may be broken off and started again at any time; but nobody else may write to the
// disk meanwhile.  An error before anything is read if the server takes no writes, trims or zeros.
//
// Freed with WRITE_ZEROES that may leave a hole, never with TRIM: a trimmed range may read as
// anything afterwards, a zeroed one reads as zeros, says the protocol.  A server that offers
// FAST_ZERO is asked for that, for it not to write zeros over zeros where it cannot free.
qcow2::Result<PunchSummary> punch(const PunchOptions& options, Progress& progress,
                                  const Cancel& cancel);

}  // namespace copy
