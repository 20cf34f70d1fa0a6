// In-place compaction: deallocates zeros that a server stores as data.
#pragma once

#include <chrono>
#include <cstdint>

#include "base/cancel.h"
#include "base/progress.h"
#include "base/result.h"
#include "nbd/target.h"
#include "nbd/tuning.h"

namespace vc::copy {

struct PunchOptions {
  nbd::NbdTarget target;
  nbd::NbdTuning nbd;
  // Block size of zero detection: bytes, a power of two, 512 to 2 MiB. 0: the server's preferred
  // block size.
  uint64_t unit = 0;
  bool dry_run = false;  // deallocate nothing; `zero` predicts the result
};

struct PunchSummary {
  uint64_t disk_size = 0;  // bytes
  uint64_t unit = 0;       // bytes
  uint64_t scanned = 0;    // data according to the server, all of which was read; bytes
  uint64_t zero = 0;       // part of `scanned` in blocks of zeros, bytes
  uint64_t punched = 0;    // part of `zero` that the server accepted to deallocate, bytes
  std::chrono::duration<double> elapsed{};
};

// Reads what the server reports as data, and deallocates the zeros. The content of the disk does
// not change, so the operation can be interrupted and restarted. No other client may write to the
// disk meanwhile. Fails before reading if the server does not accept writes, trims or zeros.
//
// Uses WRITE_ZEROES that may leave a hole, never TRIM: a trimmed range has undefined content, a
// zeroed range reads as zeros. If the server offers FAST_ZERO, the requests use it, so that the
// server does not write zeros where it cannot deallocate.
Result<PunchSummary> punch(const PunchOptions& options, Progress& progress, const Cancel& cancel);

}  // namespace vc::copy
