// Queries the block status of a server's disk in one metadata context.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "nbd/session.h"
#include "nbd/status_reply.h"

namespace vc::nbd {

// Asks over a session that was opened with the context. A server may answer in parts, reject long
// requests, or reject all requests. It may also send more than is reasonable to store.
class NbdStatus {
 public:
  using Stretch = StatusStretch;

  // Asks for `context`. `alignment`: minimum block size of the disk, bytes, a power of two.
  NbdStatus(std::string context, uint64_t alignment);

  // Returns true if the server offers the context. Otherwise all ranges are unknown.
  bool offered(NbdSession& session) const { return session.connection().has_context(context_); }

  // Appends the status of [at, at + length), or of a first part of it, to `out`: in order, without
  // gaps, at least one stretch, and at most about ten thousand. Reconnects when the connection is
  // lost.
  Result<void> ask(NbdSession& session, uint64_t at, uint64_t length, std::vector<Stretch>& out);

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
