// How often a waiting thread checks for a stop.
#pragma once

#include <chrono>

namespace vc {

// A signal handler sets a stop, but cannot wake a thread: the longest delay of Ctrl-C in each wait.
inline constexpr std::chrono::milliseconds kPollInterval{20};

}  // namespace vc
