// The connection options of one command.
#pragma once

#include <chrono>
#include <cstdint>

namespace vc::nbd {

struct NbdTuning {
  unsigned connections = 4;           // at least 1; used if the server allows several
  unsigned requests = 16;             // in flight per connection, at least 1
  uint64_t request_size = 256 << 10;  // bytes per request, a power of two
  // Most attempts in a row to restore a lost connection, without an answer in between. The waits
  // before them are 0.1, 0.2, 0.4 … seconds, at most 5 each. With 5 retries, a server has three
  // seconds to come back.
  unsigned retries = 5;
  // Limit for a connection attempt, and for the time until the next outstanding answer. After that
  // the connection counts as lost. 0: no limit. Requests that may make a server write much (flush,
  // zero) get ten times as long.
  std::chrono::seconds timeout{60};
};

}  // namespace vc::nbd
