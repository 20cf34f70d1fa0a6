// Holes in an image's own file: clusters that have a place there and were never written.
//
// An image whose metadata was preallocated is full of them.  They read as zeros, and a filesystem
// tells where they are in less time than it takes to read them.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "qcow2/read/disk.h"
#include "qcow2/read/extent.h"

namespace qcow2 {

class FileHoles {
 public:
  // Holes that are shorter are read like data: extents should not become too many.  Bytes.
  static constexpr uint64_t kShortest = 64 << 10;

  // Questions to storages so far, each of which may be a system call or a trip to a server.
  uint64_t questions() const { return questions_; }

  // Of the extents of `disk` from `first` on, makes those kZero, or the parts of them, that are
  // holes.  What would be more than `max_extents` in all goes: `extents` covers a first part then.
  Result<void> split(const Disk& disk, std::vector<Extent>& extents, size_t first,
                     size_t max_extents);

 private:
  // What is known of the file of one layer: [begin, end) holds data.
  struct Known {
    uint64_t begin = 0;
    uint64_t end = 0;
  };
  struct Run {
    uint64_t length;
    bool data;
  };
  Result<Run> run_at(const Storage& storage, Known& known, uint64_t at, uint64_t limit,
                     uint64_t cluster_size);

  std::vector<Known> known_;  // by depth
  uint64_t questions_ = 0;
};

}  // namespace qcow2
