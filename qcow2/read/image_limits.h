// Limits for untrusted images: an image of some kilobytes can describe terabytes of data, and keep
// a reader busy for days.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "qcow2/format/header.h"

namespace vc::qcow2 {

class Image;

struct ImageLimits {
  uint64_t virtual_size = uint64_t{16} << 40;  // bytes, for the disk and each snapshot
  uint64_t snapshots = 64;
  uint64_t bitmaps = 64;
  // The most bytes of data that the tables of one disk may map, per byte of the file.  Real codecs
  // on guest disks stay far below it; a cluster that is mapped again and again exceeds it.
  uint64_t ratio = 256;

  // A small file may map this much data whatever the ratio, bytes.
  static constexpr uint64_t kFreeData = uint64_t{1} << 30;
};

// Checks the values in the header, before memory is allocated for them.
Result<void> check_header_limits(const Header& header, const ImageLimits& limits);

// Checks what the tables of the disk and of each snapshot map.  Two L1 entries of one disk must not
// share an L2 table; no writer creates that.  Reads each L2 table once per disk, at most as many as
// the virtual size needs.
Result<void> check_table_limits(const Image& image, const ImageLimits& limits);

}  // namespace vc::qcow2
