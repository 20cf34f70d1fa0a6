// Remembers that a flush of a file has failed.
#pragma once

#include <atomic>
#include <cerrno>

#include "base/retry.h"

namespace vc {

// The kernel reports a failure of fsync once, and then treats the lost data as written: a later
// call succeeds without writing it.  So after one failure all calls of run() fail.  Thread-safe.
class SyncMemory {
 public:
  // Calls `sync (fd)`: fsync or fdatasync.  Returns 0, or the errno of the first failure.
  int run(int (*sync)(int), int fd) {
    if (const int failed = failed_) return failed;
    if (retry(sync, fd) == 0) return 0;
    const int errnum = errno;
    int none = 0;
    failed_.compare_exchange_strong(none, errnum);
    return errnum;
  }

 private:
  std::atomic<int> failed_ = 0;
};

}  // namespace vc
