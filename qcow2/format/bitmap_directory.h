// Persistent dirty bitmaps (QCOW2 text, "Bitmaps").
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "qcow2/format/header.h"
#include "storage/offset.h"
#include "storage/storage.h"

namespace qcow2 {

struct Bitmap {
  static constexpr uint32_t kInUse = 1 << 0;  // it was not stored whole: what it says is lost
  static constexpr uint32_t kAuto = 1 << 1;   // it goes on recording when the image is opened

  std::string name;
  uint32_t flags = 0;
  unsigned granularity_bits = 16;  // one bit for each 1 << granularity_bits bytes of the disk
  HostOffset table;
  uint32_t table_entries = 0;

  bool in_use() const { return (flags & kInUse) != 0; }
  bool automatic() const { return (flags & kAuto) != 0; }
  uint64_t granularity() const { return uint64_t{1} << granularity_bits; }
};

struct BitmapDirectory {
  HostOffset at;
  uint64_t size = 0;  // bytes
  std::vector<Bitmap> bitmaps;
};

// Reads it, within QEMU's limits; empty when the image has none, or when its feature bit says that
// somebody wrote to the image who does not know of bitmaps.  Whether the tables lie within the file
// is not looked at.
Result<BitmapDirectory> read_bitmap_directory(const Storage& storage, const Header& header);

}  // namespace qcow2
