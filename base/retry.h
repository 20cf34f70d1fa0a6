// Calls of the system that a signal has interrupted are made again.
#pragma once

#include <cerrno>

namespace qcow2 {

// Returns what `function (arguments…)` returns, a call that says -1 and sets errno when it fails;
// makes it again for as long as it fails with EINTR.  Not for close (), which has closed by then,
// nor where a signal is to end the wait.
template <typename Function, typename... Arguments>
auto retry(Function function, Arguments... arguments) {
  while (true) {
    const auto result = function(arguments...);
    if (result >= 0 || errno != EINTR) return result;
  }
}

}  // namespace qcow2
