// Writes and zeros over one connection, several requests at a time.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/aligned_buffer.h"
#include "base/result.h"
#include "nbd/limits.h"
#include "nbd/session.h"
#include "nbd/tuning.h"

namespace copy {

// What is learned of the server on one connection holds for all.  Thread-safe, for lines that are
// each used by one thread.
class NbdWriter {
 public:
  // Of the tuning, the requests and their size count.
  struct Options {
    NbdTuning tuning = {};
    // Zeros must cost the server next to nothing, or not be asked for at all: FAST_ZERO where that
    // is offered, and a refusal is an error.  Else zeros are written where they cannot be asked
    // for.
    bool only_cheap_zeros = false;
  };

  // Of the disk: begins and ends at multiples of the server's minimum block (or with the disk).
  struct Piece {
    uint64_t at = 0;                   // bytes
    uint64_t length = 0;               // bytes
    const std::byte* bytes = nullptr;  // null: zeros
  };

  NbdWriter(const NbdLimits& limits, const Options& options);

  // When it returns without an error, the server has said yes to everything; if it went away in
  // between, to some of it before that (see NbdLine::set_check).
  qcow2::Result<void> send(NbdLine& line, std::span<const Piece> pieces);

  // Zeroes [0, end) if the server can do it at once.  False: it cannot, and some of it may be
  // zeroed.
  qcow2::Result<bool> zero_fast(NbdLine& line, uint64_t end);

  // Whether zeros need not be written.
  bool can_zero() const { return can_zero_; }

  // With only_cheap_zeros: how many bytes of zeros stay as they were.
  uint64_t declined() const { return declined_; }

 private:
  class Sender;

  const Options options_;
  const uint64_t write_limit_;        // bytes
  const uint64_t small_zero_;         // what each server takes that takes zeros, bytes
  const bool fast_;                   // FAST_ZERO is known to the server
  std::atomic<uint64_t> zero_limit_;  // bytes
  std::atomic<bool> can_zero_;
  std::atomic<uint64_t> declined_ = 0;  // bytes
  qcow2::AlignedBuffer zeros_;
};

}  // namespace copy
