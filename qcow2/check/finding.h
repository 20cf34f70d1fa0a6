// What a check finds wrong with an image.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>

#include "storage/offset.h"

namespace qcow2 {

struct Finding {
  enum class Kind {
    // Counts.  `host` is the first of `times` clusters that follow each other.
    kLeak,              // counted more often than referred to
    kRefcountTooLow,    // counted less often
    kRefcountOverflow,  // more references than a count of this width can say
    kRefcountUnknown,   // the block that counts them cannot be used
    // The refcount table.  `index`: of its entry.
    kRefcountTableUnusable,  // the header's fields lead to no table
    kRefcountTableReserved,  // reserved bits of an entry
    kRefcountBlockUnaligned,
    kRefcountBlockOutside,
    kRefcountBlockShared,  // found: the references to the block's cluster
    // L1 and L2 tables.  `entry` is where the entry stands, `found` what it is and `expected` what
    // it should be, where that can be said.
    kL1Reserved,
    kL1Copied,
    kL2TableUnaligned,
    kL2Reserved,
    kL2Copied,
    kDataUnaligned,
    kPreallocatedUnaligned,  // the same where the guest reads zeros in any case
    kCompressedCopied,
    kCompressedInDataFile,
    kCompressedBitmap,    // an extended entry, compressed, with subclusters
    kSubclusterConflict,  // a subcluster both allocated and zero
    kSubclusterNowhere,   // allocated subclusters of a cluster that has no place
    kZeroFlagVersion2,
    kReferenceOutside,  // a cluster or more behind the end of the file; found: bytes of it
    kOverlap,           // metadata and something else in one cluster
    // A table is all zeros, and leaks look like what it referred to.  found: leaked clusters.
    kLostReferences,
    // The snapshot table.  `index`: which one.
    kSnapshotTableUnusable,
    kSnapshotOffset,  // there are none, and the header's field says where in no valid way
    kSnapshotsTooMany,
    kSnapshotIncomplete,  // no VM state size or disk size in version 3
    kSnapshotExtraTooLong,
    kSnapshotL1Unaligned,
    kSnapshotL1TooLarge,
    kSnapshotsWithDataFile,
    // Bitmaps.  `index`: which one.
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
    // Compressed clusters, of a deep check.  `expected`: the right entry, for the first two.
    kDescriptorTooLong,
    kDescriptorTooShort,
    kStreamTruncated,  // goes on behind the end of the file
    kStreamDamaged,
    // The storage said no.
    kUnreadable,
  };

  enum class Severity {
    kNote,        // nothing is wrong by it
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
  Place other = Place::kData;  // kOverlap: what lies there, too
  bool repairable = false;     // by check -r all
  uint64_t times = 1;          // how often it counts in the sums
  HostOffset host;             // of what it is about, or that is pointed to
  std::optional<GuestOffset> guest;
  uint64_t guest_length = 0;        // kLostReferences: bytes that the table maps
  std::optional<HostOffset> entry;  // of the entry in the file that is wrong
  uint64_t found = 0;
  uint64_t expected = 0;
  uint32_t snapshot = kActive;  // whose disk `guest` belongs to, as an index of the snapshot table
  uint64_t index = 0;
  // Where `entry` is one of an L1 or L2 table: how often that table is named as one.  Clusters that
  // have more references hold something else, too.
  uint64_t table_references = 0;
};

// Words with hyphens, for JSON: "refcount-too-low".
const char* to_string(Finding::Kind kind);
const char* to_string(Finding::Severity severity);
// Whether `found` and `expected` of such a finding are entries of a table, rather than numbers.
bool is_entry(Finding::Kind kind);
// For a person: "L2 table".
const char* to_string(Finding::Place place);

// One line without an end, for a person: what, where, what it should be.
std::string describe(const Finding& finding, uint64_t cluster_size);

}  // namespace qcow2
