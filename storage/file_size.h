// The size of a file, or of several files together.
#pragma once

#include <sys/stat.h>

#include <cstdint>

namespace vc {

struct FileSize {
  uint64_t length = 0;  // bytes
  uint64_t blocks = 0;  // allocated by the filesystem, bytes

  static FileSize of(const struct stat& status) {
    return {static_cast<uint64_t>(status.st_size), static_cast<uint64_t>(status.st_blocks) * 512};
  }
  FileSize& operator+=(const FileSize& other) {
    length += other.length;
    blocks += other.blocks;
    return *this;
  }
};

}  // namespace vc
