// Remembers that a file could not be put on the disk.
#pragma once

#include <atomic>
#include <cerrno>

#include "base/retry.h"

namespace qcow2 {

// The kernel tells of a failure of fsync once, and takes what was lost for written from then on: a
// later call that succeeds says nothing of it.  So after one failure all calls fail.  Thread-safe.
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

}  // namespace qcow2
