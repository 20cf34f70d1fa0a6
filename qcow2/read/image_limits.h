// Limits on what an untrusted image may ask for: an image of some kilobytes can describe terabytes
// of data, and keep whoever reads its disk busy for days.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "qcow2/format/header.h"

namespace qcow2 {

class Image;

struct ImageLimits {
  uint64_t virtual_size = uint64_t{16} << 40;  // bytes, of the disk and of each snapshot
  uint64_t snapshots = 64;
  uint64_t bitmaps = 64;
  // Bytes of data that the tables of one disk map, per byte of the file.  What codecs reach on
  // disks of guests is far below that; one cluster that is mapped again and again is above.
  uint64_t ratio = 256;

  // A small file may map so much data whatever the ratio, bytes.
  static constexpr uint64_t kFreeData = uint64_t{1} << 30;
};

// Checks what the header says; all numbers before memory is allocated for them.
Result<void> check_header_limits(const Header& header, const ImageLimits& limits);

// Checks what the tables of the disk and of each snapshot map.  No two L1 entries of one disk may
// share an L2 table, which no writer makes.  Reads each L2 table once per disk: no more than the
// virtual size accounts for.
Result<void> check_table_limits(const Image& image, const ImageLimits& limits);

}  // namespace qcow2
