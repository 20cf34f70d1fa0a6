// How a test tells a server, with failing_file.cc loaded into it, what is to fail.
#pragma once

#include <atomic>
#include <cstdint>

namespace vc::test {

// Lies in a file that both have mapped.
struct Faults {
  std::atomic<int32_t> error{0};       // errno; 0: nothing fails
  std::atomic<int64_t> good_calls{0};  // that still work before all fail
  std::atomic<bool> reads{false};      // they count, and fail, too
  std::atomic<int64_t> failed{0};      // calls, so far
};

static_assert(std::atomic<int64_t>::is_always_lock_free, "two processes share it");

}  // namespace vc::test
