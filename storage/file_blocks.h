// Where the bytes of a file are on its filesystem.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace vc {

// Asks the filesystem for extents (FIEMAP), and remembers some. Data that is not on the filesystem
// yet is written back first. Not thread-safe.
class FileBlocks {
 public:
  // `fd` must stay open while the object is used.
  explicit FileBlocks(int fd) : fd_(fd) {}

  // Returns true if [at, at + length) is stored in the same blocks as `other_at` of `other`, a file
  // of the same filesystem. Returns false if that is not so, or not known: a hole, compressed or
  // encrypted extents, a filesystem that does not tell.
  bool are_shared(uint64_t at, uint64_t length, FileBlocks& other, uint64_t other_at);

 private:
  struct Extent {
    uint64_t begin = 0;  // in the file, bytes
    uint64_t end = 0;
    uint64_t place = 0;  // of the byte at `begin` on the filesystem
    bool is_known = false;
  };

  // Returns the extent that contains `at`; nullptr: none, or not known.
  const Extent* find(uint64_t at);
  void ask(uint64_t at);

  int fd_;
  std::vector<Extent> extents_;  // in order
  size_t last_ = 0;              // index of the extent that find() returned last
};

}  // namespace vc
