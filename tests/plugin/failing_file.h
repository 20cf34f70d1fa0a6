// Controls which calls fail in a server that has failing_file.cc loaded.
#pragma once

#include <atomic>
#include <cstdint>

namespace vc::test {

// Stored in a file that the test and the server map.
struct Faults {
  std::atomic<int32_t> error{0};       // errno; 0: nothing fails
  std::atomic<int64_t> good_calls{0};  // calls that succeed before all calls fail
  std::atomic<bool> reads{false};      // reads count and fail, too
  std::atomic<int64_t> failed{0};      // failed calls so far
};

static_assert(std::atomic<int64_t>::is_always_lock_free, "two processes share it");

}  // namespace vc::test
