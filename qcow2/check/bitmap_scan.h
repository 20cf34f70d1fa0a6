// Scans the directory of persistent bitmaps of an image, damaged or not.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "qcow2/check/finding.h"
#include "qcow2/format/header.h"
#include "storage/storage.h"

namespace vc::qcow2 {

struct BitmapScan {
  struct Table {
    HostOffset at;
    uint64_t bytes = 0;
    uint32_t bitmap = 0;  // index in the directory
    bool in_use = false;  // the bitmap was not stored when the image was last closed
  };
  HostOffset directory;
  uint64_t directory_bytes = 0;  // 0: there is none
  std::vector<Table> tables;
  bool complete = true;  // false: the directory may refer to more clusters

  // Reads the directory.  Reports damage to `found`.
  static Result<BitmapScan> read(const Storage& storage, const Header& header,
                                 const std::function<void(const Finding&)>& found);
};

}  // namespace vc::qcow2
