// Runs the same work on many items, on several threads.
#pragma once

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
    try {
      for (unsigned i = 1; i < threads && i < count; ++i) others.emplace_back(run);
    } catch (const std::system_error&) {
      // Fewer threads do the same work.
    }
    run();
  }
  if (thrown) std::rethrow_exception(thrown);
}

}  // namespace vc
