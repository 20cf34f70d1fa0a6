// A single finding of a check.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>

#include "storage/offset.h"

namespace vc::qcow2 {

struct Finding {
  enum class Kind {
    // Counts.  `host` is the first of `times` consecutive clusters.
    kLeak,              // the refcount is higher than the references
    kRefcountTooLow,    // the refcount is lower than the references
    kRefcountOverflow,  // more references than the refcount can represent
    kRefcountUnknown,   // the refcount block is unusable
    // The refcount table.  `index` is that of the entry.
    kRefcountTableUnusable,  // the header's fields do not lead to a table
    kRefcountTableReserved,  // reserved bits of an entry are set
    kRefcountBlockUnaligned,
    kRefcountBlockOutside,
    kRefcountBlockShared,  // found: the references to the block's cluster
    // L1 and L2 tables.  `entry` is the offset of the entry, `found` its value, and `expected` its
    // correct value, where known.
    kL1Reserved,
    kL1Copied,
    kL2TableUnaligned,
    kL2Reserved,
    kL2Copied,
    kDataUnaligned,
    kPreallocatedUnaligned,  // like kDataUnaligned, where the guest reads zeros in any case
    kCompressedCopied,
    kCompressedInDataFile,
    kCompressedBitmap,    // a compressed extended entry with a subcluster bitmap
    kSubclusterConflict,  // a subcluster is both allocated and zero
    kSubclusterNowhere,   // allocated subclusters in a cluster without a host offset
    kZeroFlagVersion2,
    kReferenceOutside,  // at least a cluster past the end of the file; found: its bytes there
    kOverlap,           // metadata shares a cluster with something else
    // A table contains only zeros, and leaks look like its references. found: leaked clusters.
    kLostReferences,
    // The snapshot table.  `index` is that of the snapshot.
    kSnapshotTableUnusable,
    kSnapshotOffset,  // no snapshots, and the header's offset of their table is invalid
    kSnapshotsTooMany,
    kSnapshotIncomplete,  // no VM state size or disk size in version 3
    kSnapshotExtraTooLong,
    kSnapshotL1Unaligned,
    kSnapshotL1TooLarge,
    kSnapshotsWithDataFile,
    // Bitmaps.  `index` is that of the bitmap.
    kBitmapDirectoryUnusable,
    kBitmapTableUnusable,
    kBitmapTableEntry,
    kBitmapInUse,
    // The header.
    kDirty,
    kCorruptBit,
    kExtensionLength,   // index: the type of the extension, expected: the length that QEMU takes
    kExtensionForeign,  // about LUKS, in an image without
    kExtensionMissing,  // about LUKS, in an image that is encrypted so
    kDataFileRaw,       // the data file is said to be raw, and there is none
    kLuksPlace,  // the place of the LUKS header is invalid; found: its offset, expected: its length
    kLuksDamaged,  // the LUKS header violates its format
    // Compressed clusters, in a deep check.  For the first two, `expected` is the correct entry.
    kDescriptorTooLong,
    kDescriptorTooShort,
    kStreamTruncated,  // the stream continues past the end of the file
    kStreamDamaged,
    // The storage returned an error.
    kUnreadable,
  };

  enum class Severity {
    kNote,        // no damage
    kLeak,        // space is lost
    kCorruption,  // data is damaged, or will be
    kCheckError,  // something could not be checked
  };

  // The structure that refers, or that is referred to.
  enum class Place {
    kHeader,
    kL1Table,
    kL2Table,
    kData,
    kCompressed,
    kRefcountTable,
    kRefcountBlock,
    kSnapshotTable,
    kBitmapDirectory,
    kBitmapTable,
    kBitmapData,
    kEncryptionHeader,
  };

  static constexpr uint32_t kActive = std::numeric_limits<uint32_t>::max();

  Kind kind;
  Severity severity = Severity::kCorruption;
  Place place = Place::kData;
  Place other = Place::kData;  // kOverlap: the other structure there
  bool repairable = false;     // by check -r all
  uint64_t times = 1;          // the weight in the sums
  HostOffset host;             // of the affected or referenced cluster
  std::optional<GuestOffset> guest;
  uint64_t guest_length = 0;        // kLostReferences: bytes that the table maps
  std::optional<HostOffset> entry;  // of the wrong entry in the file
  uint64_t found = 0;
  uint64_t expected = 0;
  uint32_t snapshot = kActive;  // index in the snapshot table, of the disk of `guest`
  uint64_t index = 0;
  // If `entry` is in an L1 or L2 table: the number of references to that table as such a table.
  // Clusters with more references contain something else, too.
  uint64_t table_references = 0;
};

// Returns a hyphenated word for JSON: "refcount-too-low".
const char* to_string(Finding::Kind kind);
const char* to_string(Finding::Severity severity);
// Returns whether `found` and `expected` are table entries rather than numbers.
bool is_entry(Finding::Kind kind);
// Returns a name for users: "L2 table".
const char* to_string(Finding::Place place);

// Returns one line for users, without a newline: the kind, the place, and the correct value.
std::string describe(const Finding& finding, uint64_t cluster_size);

}  // namespace vc::qcow2
