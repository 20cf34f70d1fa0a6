// Queries the block status of a server's disk in one metadata context.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "nbd/session.h"

namespace vc::nbd {

// Queries over a session that was opened with the context.  Servers may answer in parts, reject
// long requests, or reject all requests; an answer may be longer than is reasonable to store.
class NbdStatus {
 public:
  struct Stretch {
    uint64_t at = 0;      // offset in the disk, bytes
    uint64_t length = 0;  // bytes, at least 1
    bool known = false;   // the server has answered for this range
    uint32_t flags = 0;   // status flags in the answer
  };

  // For `context`, and a disk with a minimum block size of `alignment` bytes (a power of two).
  NbdStatus(std::string context, uint64_t alignment);

  // Returns whether the server offers the context.  If not, all ranges are unknown.
  bool offered(NbdLine& line) const { return line.connection().has_context(context_); }

  // Appends to `out`, in order and without gaps, the status of [at, at + length) or of a first part
  // of it: at least one stretch, at most about ten thousand.  Reconnects when the connection is
  // lost.
  Result<void> ask(NbdLine& line, uint64_t at, uint64_t length, std::vector<Stretch>& out);

  const std::string& context() const { return context_; }

 private:
  const std::string context_;
  const uint64_t smallest_;  // smallest request, bytes
  uint64_t window_;          // size of the next request, bytes
  bool answered_ = false;    // at least once
  unsigned good_ = 0;        // successful answers
  unsigned refused_ = 0;     // rejected smallest requests in a row
  bool silent_ = false;      // the server rejects all requests: stop asking
};

}  // namespace vc::nbd
