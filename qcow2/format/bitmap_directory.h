// Persistent dirty bitmaps (QCOW2 text, "Bitmaps").
#pragma once

#include <cstdint>
#include <optional>
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
  HostOffset entry;  // of its entry in the directory

  bool in_use() const { return (flags & kInUse) != 0; }
  bool automatic() const { return (flags & kAuto) != 0; }
  uint64_t granularity() const { return uint64_t{1} << granularity_bits; }
};

struct BitmapDirectory {
  // What is wrong, and where.
  struct Fault {
    std::string what;
    uint64_t index = 0;  // of the bitmap
    HostOffset entry;    // of its entry in the file; 0: it is about the directory as a whole
  };

  HostOffset at;
  uint64_t size = 0;  // bytes; 0: there is none, or it cannot be read
  std::vector<Bitmap> bitmaps;
  std::optional<Fault> fault;  // `bitmaps` are those before it
};

// Parses the directory, within QEMU's limits.  It is empty when the image has none, or when its
// feature bit says that a program wrote to the image which does not know of bitmaps.  Damage is a
// fault of the result; an error is one of the storage.  The tables may lie anywhere.
Result<BitmapDirectory> parse_bitmap_directory(const Storage& storage, const Header& header);

// Does the same, and a fault is an error.
Result<BitmapDirectory> read_bitmap_directory(const Storage& storage, const Header& header);

}  // namespace qcow2
