// The directory of persistent bitmaps of an image, however it looks.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "qcow2/check/finding.h"
#include "qcow2/format/header.h"
#include "storage/storage.h"

namespace qcow2 {

struct BitmapScan {
  struct Table {
    HostOffset at;
    uint64_t bytes = 0;
    uint32_t bitmap = 0;  // number in the directory
    bool in_use = false;  // it was not stored when the image was last closed
  };
  HostOffset directory;
  uint64_t directory_bytes = 0;  // 0: there is none
  std::vector<Table> tables;
  bool complete = true;  // false: nobody knows what else it refers to

  // What `entry` of a bitmap's table must not have.
  static bool bad_entry(uint64_t entry, uint64_t cluster_size);

  // Reads the directory, and tells `found` what is wrong with it.
  static Result<BitmapScan> read(const Storage& storage, const Header& header,
                                 const std::function<void(const Finding&)>& found);
};

}  // namespace qcow2
