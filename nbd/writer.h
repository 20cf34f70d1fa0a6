// Writes data and zeros over one connection, with several requests in flight.
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

namespace vc::nbd {

// Shares what it learns about the server among all connections.  Thread-safe, as long as each
// session is used by one thread.
class NbdWriter {
 public:
  // Uses the number of requests and their size of `tuning`.
  struct Options {
    NbdTuning tuning = {};
    // Zeros only where the server can do it fast: uses FAST_ZERO where it is offered; a rejection
    // is an error. Otherwise writes zeros as data where the server cannot zero.
    bool only_cheap_zeros = false;
  };

  // A range of the disk, aligned to the server's minimum block (or ending with the disk).
  struct Piece {
    uint64_t at = 0;                   // bytes
    uint64_t length = 0;               // bytes
    const std::byte* bytes = nullptr;  // nullptr: zeros
  };

  NbdWriter(const NbdLimits& limits, const Options& options);

  // Writes `pieces`. On success, the server has acknowledged all of them. If the connection was
  // restored meanwhile, a part was acknowledged only before that (see NbdSession::set_check).
  Result<void> send(NbdSession& session, std::span<const Piece> pieces);

  // Zeroes [0, end) if the server can do it fast. Returns false if it cannot; a part of the range
  // may be zeroed then.
  Result<bool> zero_fast(NbdSession& session, uint64_t end);

  // Returns true if the server can zero without data.
  bool can_zero() const { return can_zero_; }

  // With only_cheap_zeros: returns the bytes that were not zeroed.
  uint64_t declined() const { return declined_; }

 private:
  class Sender;

  const Options options_;
  const uint64_t write_limit_;        // bytes
  const uint64_t small_zero_;         // accepted by each server that accepts zeros, bytes
  const bool fast_;                   // the server supports FAST_ZERO
  std::atomic<uint64_t> zero_limit_;  // bytes
  std::atomic<bool> can_zero_;
  std::atomic<uint64_t> declined_ = 0;  // bytes
  AlignedBuffer zeros_;
};

}  // namespace vc::nbd
