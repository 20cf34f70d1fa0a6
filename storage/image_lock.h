// QEMU's locks on image files, which keep programs from interfering: locks on single bytes that
// belong to the open file (OFD locks).
//
// There are four permissions.  A program that uses permission i holds a read lock on byte 100 + i
// of the file.  A program that forbids others to use it holds a read lock on byte 200 + i.  The
// bytes need not exist.  Each program first takes its own locks and then tests for conflicting
// locks of others: of two programs that start at the same time both may fail, but never do both
// succeed.
//
// Source: observed from outside with QEMU 7.2, for the bytes and the order of the locks.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace vc {

// How a process uses an image, and what it forbids others: sets of permissions.
struct ImageClaim {
  static constexpr unsigned kConsistentRead = 1 << 0;
  static constexpr unsigned kWrite = 1 << 1;
  static constexpr unsigned kWriteUnchanged = 1 << 2;  // for example copy-up from a backing file
  static constexpr unsigned kResize = 1 << 3;

  unsigned uses = 0;
  unsigned forbids = 0;

  // Several processes may read; none may write.
  static constexpr ImageClaim reading() { return {kConsistentRead, kWrite | kResize}; }
  // Exclusive use: conflicts with readers.
  static constexpr ImageClaim writing() {
    return {kConsistentRead | kWrite | kResize, kWrite | kResize};
  }
  // Ignores other users: a read may return a mix of old and new data (qemu-img -U).
  static constexpr ImageClaim force_share() { return {kConsistentRead, 0}; }
  // For a file that is about to be replaced: readers keep the old file, but data of a writer would
  // be lost.
  static constexpr ImageClaim replacing() { return {0, kWrite | kResize}; }

  friend bool operator==(const ImageClaim&, const ImageClaim&) = default;
};

// The locks of one open file.  They end with its last descriptor: they survive a fork while the
// child lives, and end when the process is killed.
class ImageLock {
 public:
  // Replaces the held locks by `wanted`.  `fd` must be open for reading, and the same in each call.
  // `name` is the file in messages, `advice` the end of the message.  On an error the held locks
  // are unchanged; the message names the conflicting process if /proc shows it.
  //
  // If the filesystem does not support such locks, succeeds without locks, as QEMU does.
  Result<void> take(int fd, const std::string& name, ImageClaim wanted, std::string_view advice);

 private:
  ImageClaim held_;
};

}  // namespace vc
