// QEMU's locks on image files, so that no two programs come in each other's way: locks on single
// bytes that go with the open file (OFD locks).
//
// There are four permissions.  Who uses permission i holds a read lock on byte 100 + i of the file,
// and who does not let others use it one on byte 200 + i; the bytes need not exist.  Everybody
// first takes his own locks and then tests for those of the others that contradict them: of two who
// come at once both may have to give way, but never do both stay.
//
// What QEMU locks, and in which order, was watched from outside, with QEMU 7.2.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace qcow2 {

// What somebody does with an image, and what nobody else may do meanwhile: sets of permissions.
struct ImageClaim {
  static constexpr unsigned kConsistentRead = 1 << 0;
  static constexpr unsigned kWrite = 1 << 1;
  static constexpr unsigned kWriteUnchanged = 1 << 2;  // such as copying up from a backing file
  static constexpr unsigned kResize = 1 << 3;

  unsigned uses = 0;
  unsigned forbids = 0;

  // Several may read; nobody writes.
  static constexpr ImageClaim reading() { return {kConsistentRead, kWrite | kResize}; }
  // Alone with the image: readers forbid it.
  static constexpr ImageClaim writing() {
    return {kConsistentRead | kWrite | kResize, kWrite | kResize};
  }
  // Whatever the others do: what is read may be old and new side by side (qemu-img -U).
  static constexpr ImageClaim force_share() { return {kConsistentRead, 0}; }
  // A file whose name another one gets: who reads it keeps it, what is written to it would be lost.
  static constexpr ImageClaim replacing() { return {0, kWrite | kResize}; }

  friend bool operator==(const ImageClaim&, const ImageClaim&) = default;
};

// The locks of one open file.  They end with its last descriptor: they outlive a fork for as long
// as the child lives, and nothing is left of them when a process is killed.
class ImageLock {
 public:
  // Puts `wanted` in place of what is held.  `fd` is open for reading, and the same each time;
  // `name` is what to call the file, `advice` the end of the message.  On an error, which names the
  // process that is in the way where /proc tells, all is as it was before.
  //
  // A filesystem that has no such locks is no error: all is as it would be without them, as in
  // QEMU.
  Result<void> take(int fd, const std::string& name, ImageClaim wanted, std::string_view advice);

 private:
  ImageClaim held_;
};

}  // namespace qcow2
