// Runs the same work on many items, on several threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace vc {

// Calls work (i) once for each i below `count`.  Rethrows an exception of a call after all threads
// have ended.
template <typename Work>
void parallel_for(size_t count, unsigned threads, const Work& work) {
  std::atomic<size_t> next = 0;
  Mutex mutex;
  std::exception_ptr thrown;  // guarded by mutex: locals take no attribute
  const auto run = [&] {
    try {
      for (size_t i = next++; i < count; i = next++) work(i);
    } catch (...) {
      const MutexLock lock(mutex);
      thrown = std::current_exception();
      next = count;
    }
  };
  {
    std::vector<std::jthread> others;
    const auto start = [&] {
      try {
        others.emplace_back(run);
        return true;
      } catch (const std::system_error&) {
        return false;
      }
    };
    // If a thread cannot be created, fewer threads do the same work.
    while (others.size() + 1 < std::min<size_t>(threads, count) && start()) continue;
    run();
  }
  if (thrown) std::rethrow_exception(thrown);
}

}  // namespace vc
