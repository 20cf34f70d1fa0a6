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
  // A program that does not know the extra data may use the bitmap.
  static constexpr uint32_t kExtraCompatible = 1 << 2;

  std::string name;
  uint32_t flags = 0;
  unsigned granularity_bits = 16;  // one bit per 1 << granularity_bits bytes of the disk
  HostOffset table;
  uint32_t table_entries = 0;
  HostOffset entry;          // offset of its entry in the directory
  uint32_t extra_bytes = 0;  // of extra data, which no version of the format defines yet

  bool in_use() const { return (flags & kInUse) != 0; }
  bool automatic() const { return (flags & kAuto) != 0; }
  // Returns whether the content may be used: it was stored, and no unknown data change its meaning.
  bool usable() const { return !in_use() && (extra_bytes == 0 || (flags & kExtraCompatible) != 0); }
  // Returns whether each write to the disk must set bits.
  bool enabled() const { return usable() && automatic(); }
  uint64_t granularity() const { return uint64_t{1} << granularity_bits; }

  // Return how many bits a bitmap of a disk of `disk_size` bytes has, and how many clusters, each
  // with an entry in its table.
  static uint64_t bits_for(uint64_t disk_size, unsigned granularity_bits);
  static uint64_t clusters_for(uint64_t disk_size, unsigned granularity_bits,
                               unsigned cluster_bits);
};

// The places of fields in an entry of the directory (qcow2 specification, "Bitmap directory
// entry"), in bytes.
namespace bitmap_field {
inline constexpr uint64_t kTable = 0;
inline constexpr uint64_t kTableEntries = 8;
inline constexpr uint64_t kFlags = 12;
inline constexpr uint64_t kType = 16;
inline constexpr uint64_t kGranularityBits = 17;
inline constexpr uint64_t kNameBytes = 18;
inline constexpr uint64_t kExtraBytes = 20;
inline constexpr uint64_t kName = 24;  // after the extra data
}  // namespace bitmap_field

// An entry of a bitmap table without a cluster: all bits are 0, or all are 1.
inline constexpr uint64_t kBitmapZeros = 0;
inline constexpr uint64_t kBitmapOnes = 1;
// Returns whether an entry of a bitmap table is invalid.
bool bitmap_entry_is_bad(uint64_t entry, uint64_t cluster_size);

// The most bytes of a bitmap in the file (a limit of QEMU).
inline constexpr uint64_t kMostBitmapBytes = 512 << 20;

struct BitmapDirectory {
  // The cause and the place of damage.
  struct Fault {
    std::string what;
    uint64_t index = 0;  // of the bitmap
    HostOffset entry;  // offset of its entry in the file; 0: the fault concerns the whole directory
  };

  HostOffset at;
  uint64_t size = 0;   // bytes; 0: absent or unreadable
  HostOffset pointer;  // where the header extension stores `at`
  std::vector<Bitmap> bitmaps;
  std::optional<Fault> fault;  // `bitmaps` contains only those before the fault
};

// Parses the directory, within QEMU's limits.  Returns an empty directory if the image has none, or
// if its feature bit says that a program without bitmap support has written to the image.  Damage
// is a fault in the result; only a storage error is an error.  Does not check where the tables are.
Result<BitmapDirectory> parse_bitmap_directory(const Storage& storage, const Header& header);

// Like parse_bitmap_directory(), but a fault is an error.
Result<BitmapDirectory> read_bitmap_directory(const Storage& storage, const Header& header);

// Marks in use the bitmaps of `directory` that record changes and are not yet in use: enabled ones,
// and those that cannot record because of unknown extra data.  With `all`, disabled ones, too.
// Flushes if it has written.
Result<void> mark_bitmaps_in_use(Storage& storage, const BitmapDirectory& directory,
                                 bool all = false);

}  // namespace vc::qcow2
