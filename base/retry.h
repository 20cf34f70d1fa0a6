// Repeats system calls that a signal interrupts.
#pragma once

#include <cerrno>

namespace vc {

// Calls `function (arguments…)` until it succeeds or fails with an error other than EINTR, and
// returns its result.  `function` must return -1 and set errno on failure.  Not for close (), which
// closes the descriptor even then, nor for waits that a signal is supposed to end.
template <typename Function, typename... Arguments>
auto retry(Function function, Arguments... arguments) {
  while (true) {
    const auto result = function(arguments...);
    if (result >= 0 || errno != EINTR) return result;
  }
}

}  // namespace vc
