// What a server says of its disk in one metadata context.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "nbd/session.h"

namespace copy {

// Asks over a line that was opened with the context.  Servers may answer in parts, refuse what is
// too long for them, or refuse always; their answers may be longer than anybody wants to hold.
class NbdStatus {
 public:
  struct Stretch {
    uint64_t at = 0;      // bytes of the disk
    uint64_t length = 0;  // bytes, at least 1
    bool known = false;   // the server said something
    uint32_t flags = 0;   // what it said
  };

  // Of the context, for a disk that is addressed in multiples of `alignment` (a power of two).
  NbdStatus(std::string context, uint64_t alignment);

  // Whether the server knows the context at all; without, all is unknown.
  bool offered(NbdLine& line) const { return line.connection().has_context(context_); }

  // Appends, in order and without a gap, what the server says of [at, at + length) or of a first
  // part of that: at least one stretch, and not more than some ten thousand.  Connects again
  // when the connection is lost.
  qcow2::Result<void> ask(NbdLine& line, uint64_t at, uint64_t length, std::vector<Stretch>& out);

  const std::string& context() const { return context_; }

 private:
  const std::string context_;
  const uint64_t smallest_;  // window that is asked for, bytes
  uint64_t window_;          // how much to ask for at once, bytes
  bool answered_ = false;    // at least once
  unsigned good_ = 0;        // answers
  unsigned refused_ = 0;     // smallest windows, in a row
  bool silent_ = false;      // it refuses always: no need to ask
};

}  // namespace copy
