// Runs many independent cases at a time, and collects what is wrong with them.
#pragma once

#include <cstddef>
#include <functional>
#include <mutex>
#include <string>

namespace vc::support {

// Lines of complaints. Thread-safe, unlike the assertions of Catch2.
class Complaints {
 public:
  void add(const std::string& line) {
    const std::lock_guard lock(mutex_);
    text_ += line + "\n";
  }
  // Valid when no other thread adds a line.
  const std::string& text() const { return text_; }

 private:
  std::mutex mutex_;
  std::string text_;
};

// Calls `job (0)` … `job (count - 1)` in 24 threads: for cases that mostly wait.
void in_parallel(size_t count, const std::function<void(size_t)>& job);

}  // namespace vc::support
