// Persistent dirty bitmaps (qcow2 specification, "Bitmaps").
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
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

// A bitmap for a new image.
struct NewBitmap {
  std::string name;
  uint32_t flags = 0;  // of Bitmap
  unsigned granularity_bits = 16;
  // Reads the bytes from `at` of the bits, when all data of the image is placed: bit 0 is the least
  // significant one of byte 0.  Bits past the end of the disk are ignored.
  std::function<Result<void>(uint64_t at, std::span<std::byte> to)> read;
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

// Limits of QEMU: the most bitmaps of an image, and the most bytes of one in the file.
inline constexpr uint32_t kMostBitmaps = 65535;
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

// Return the bytes of an entry of a directory, without extra data, and append one.
uint64_t bitmap_entry_bytes(const std::string& name);
void append_bitmap_entry(std::vector<std::byte>& directory, const Bitmap& bitmap);
// Returns the header extension of a directory of `count` bitmaps.
HeaderExtension bitmap_extension(uint32_t count, uint64_t directory_bytes, HostOffset directory);

// Returns the error of a new bitmap that QEMU would not accept; nullopt if there is none.
std::optional<std::string> find_bitmap_fault(const NewBitmap& bitmap, uint64_t disk_size,
                                             unsigned cluster_bits);

// Like parse_bitmap_directory(), but a fault is an error.
Result<BitmapDirectory> read_bitmap_directory(const Storage& storage, const Header& header);

// Marks in use the bitmaps of `directory` that record changes and are not yet in use: enabled ones,
// and those that cannot record because of unknown extra data.  With `all`, disabled ones, too.
// Flushes if it has written.
Result<void> mark_bitmaps_in_use(Storage& storage, const BitmapDirectory& directory,
                                 bool all = false);

}  // namespace vc::qcow2
