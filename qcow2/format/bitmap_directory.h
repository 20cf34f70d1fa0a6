// Persistent dirty bitmaps (qcow2 specification, "Bitmaps").
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "qcow2/format/header.h"
#include "storage/offset.h"
#include "storage/storage.h"

namespace vc::qcow2 {

struct Bitmap {
  static constexpr uint32_t kInUse =
      1 << 0;  // the bitmap was not stored completely: its content is lost
  static constexpr uint32_t kAuto = 1 << 1;  // recording continues when the image is opened

  std::string name;
  uint32_t flags = 0;
  unsigned granularity_bits = 16;  // one bit per 1 << granularity_bits bytes of the disk
  HostOffset table;
  uint32_t table_entries = 0;
  HostOffset entry;  // offset of its entry in the directory

  bool in_use() const { return (flags & kInUse) != 0; }
  bool automatic() const { return (flags & kAuto) != 0; }
  uint64_t granularity() const { return uint64_t{1} << granularity_bits; }
};

struct BitmapDirectory {
  // The cause and the place of damage.
  struct Fault {
    std::string what;
    uint64_t index = 0;  // of the bitmap
    HostOffset entry;  // offset of its entry in the file; 0: the fault concerns the whole directory
  };

  HostOffset at;
  uint64_t size = 0;  // bytes; 0: absent or unreadable
  std::vector<Bitmap> bitmaps;
  std::optional<Fault> fault;  // `bitmaps` contains only those before the fault
};

// Parses the directory, within QEMU's limits.  Returns an empty directory if the image has none, or
// if its feature bit says that a program without bitmap support has written to the image.  Damage
// is a fault in the result; only a storage error is an error.  Does not check where the tables are.
Result<BitmapDirectory> parse_bitmap_directory(const Storage& storage, const Header& header);

// Like parse_bitmap_directory(), but a fault is an error.
Result<BitmapDirectory> read_bitmap_directory(const Storage& storage, const Header& header);

}  // namespace vc::qcow2
