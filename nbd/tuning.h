// How the servers of one command are spoken to, as its options say.
#pragma once

#include <chrono>
#include <cstdint>

namespace copy {

struct NbdTuning {
  unsigned connections = 4;           // at least 1; used if the server allows several
  unsigned requests = 16;             // in flight on each, at least 1
  uint64_t request_size = 256 << 10;  // bytes of one request, a power of two
  // How often in a row, without an answer in between, a lost connection is made again before that
  // is an error: after 0.1, 0.2, 0.4 … seconds, at most 5 each.  With 5 a server has three seconds
  // to come back.
  unsigned retries = 5;
  // How long a connection may take to be made, and a server may owe an answer without completing
  // one; the connection counts as lost then.  0: for ever.  Requests for which a server may have to
  // write much (flush, zero) are given ten times as long.
  std::chrono::seconds timeout{60};
};

}  // namespace copy
