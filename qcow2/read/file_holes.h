// Finds holes in an image's own file: clusters that are allocated and were never written.
//
// Images with preallocated metadata have many of them.  They read as zeros, and a query of the
// filesystem is faster than a read.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "qcow2/read/disk.h"
#include "qcow2/read/extent.h"

namespace vc::qcow2 {

class FileHoles {
 public:
  // Shorter holes are treated as data, to limit the number of extents.  Bytes.
  static constexpr uint64_t kShortest = 64 << 10;

  // Returns the number of queries so far.  Each may be a system call or a request to a server.
  uint64_t questions() const { return questions_; }

  // Splits the extents of `disk` from index `first` on at holes, and makes the holes kZero.  Drops
  // extents in excess of `max_extents`: `extents` then covers only a first part.
  Result<void> split(const Disk& disk, std::vector<Extent>& extents, size_t first,
                     size_t max_extents);

 private:
  // The known part of one layer's file: [begin, end) holds data.
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

}  // namespace vc::qcow2
