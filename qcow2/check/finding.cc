#include "qcow2/check/finding.h"

#include <fmt/format.h>

#include "qcow2/format/header.h"

namespace vc::qcow2 {

namespace {

using Kind = Finding::Kind;

// Returns a text such as "guest offset 0x10000 of snapshot 2".
std::string guest_text(const Finding& it) {
  if (!it.guest) return "";
  std::string text = fmt::format("guest offset {:#x}", it.guest->value());
  if (it.snapshot != Finding::kActive) text += fmt::format(" of snapshot {}", it.snapshot);
  return text;
}

// Describes the fault of the entry, without its place.
std::string entry_text(const Finding& it) {
  switch (it.kind) {
    case Kind::kL1Reserved:
    case Kind::kL2Reserved:
      return fmt::format("entry {:#x} has reserved bits set", it.found);
    case Kind::kL1Copied:
      if (it.expected == 0)
        return fmt::format("entry {:#x} has the COPIED flag, but no table", it.found);
      [[fallthrough]];
    case Kind::kL2Copied:
      return fmt::format("entry {:#x} {} the COPIED flag, but the refcount of its cluster is {}1",
                         it.found, it.found > it.expected ? "has" : "lacks",
                         it.found > it.expected ? "not " : "");
    case Kind::kL2TableUnaligned:
      return fmt::format("entry {:#x}: the L2 table does not begin at a cluster", it.found);
    case Kind::kDataUnaligned:
      return fmt::format("entry {:#x}: the data do not begin at a cluster", it.found);
    case Kind::kPreallocatedUnaligned:
      return fmt::format(
          "entry {:#x}: reads as zeros, but its offset is not at the start of a cluster", it.found);
    case Kind::kCompressedCopied:
      return fmt::format("entry {:#x} has the COPIED flag, and is compressed", it.found);
    case Kind::kCompressedInDataFile:
      return fmt::format("entry {:#x} is compressed, but data are in an external file", it.found);
    case Kind::kCompressedBitmap:
      return fmt::format("entry {:#x} is compressed, and has subclusters", it.found);
    case Kind::kSubclusterConflict:
      return fmt::format("entry {:#x}: a subcluster is both allocated and zero", it.found);
    case Kind::kSubclusterNowhere:
      return fmt::format("entry {:#x}: subclusters are allocated, but there is no cluster",
                         it.found);
    case Kind::kZeroFlagVersion2:
      return fmt::format("entry {:#x} has the zero flag, which version 2 does not have", it.found);
    case Kind::kDescriptorTooLong:
      return fmt::format(
          "compressed entry {:#x} claims more sectors than its stream has: {:#x} is "
          "right",
          it.found, it.expected);
    case Kind::kDescriptorTooShort:
      return fmt::format(
          "compressed entry {:#x} claims fewer sectors than its stream has: {:#x} "
          "is right",
          it.found, it.expected);
    case Kind::kStreamTruncated:
      return fmt::format(
          "compressed entry {:#x}: the stream at {:#x} is truncated by the end of the "
          "file",
          it.found, it.host.value());
    case Kind::kStreamDamaged:
      return fmt::format("compressed entry {:#x}: the stream at {:#x} cannot be decoded", it.found,
                         it.host.value());
    default:
      return {};
  }
}

std::string refcount_text(const Finding& it, uint64_t cluster_size) {
  const uint64_t cluster = it.host.value() / cluster_size;
  const std::string which = it.times == 1 || it.kind == Kind::kRefcountOverflow
                                ? fmt::format("cluster {} (at {:#x})", cluster, it.host.value())
                                : fmt::format("clusters {} to {} (from {:#x})", cluster,
                                              cluster + it.times - 1, it.host.value());
  switch (it.kind) {
    case Kind::kRefcountOverflow:
      return fmt::format("{}: {} references, more than a refcount can hold ({})", which, it.found,
                         it.expected);
    case Kind::kRefcountUnknown:
      return fmt::format("{}: the refcount cannot be read, references={}", which, it.expected);
    default:
      return fmt::format("{}: refcount={} references={}", which, it.found, it.expected);
  }
}

std::string lost_text(const Finding& it) {
  std::string text =
      fmt::format("the {} at {:#x} is all zeros", to_string(it.place), it.host.value());
  if (it.place == Finding::Place::kBitmapTable) text += fmt::format(" (bitmap {})", it.index);
  if (it.guest_length > 0) text += fmt::format(" ({} bytes of the disk)", it.guest_length);
  if (it.found == 0) return text + ", and no refcounts show whether it was overwritten";
  return text + fmt::format(", and it may have referred to {} leaked cluster{}", it.found,
                            it.found == 1 ? "" : "s");
}

std::string structure_text(const Finding& it) {
  switch (it.kind) {
    case Kind::kRefcountTableUnusable:
      return fmt::format("the refcount table of the header, at {:#x} with {} clusters, is invalid",
                         it.host.value(), it.found);
    case Kind::kRefcountTableReserved:
      return fmt::format("refcount table: entry {} is {:#x}: reserved bits are set", it.index,
                         it.found);
    case Kind::kRefcountBlockUnaligned:
      return fmt::format("refcount table: entry {} is {:#x}: does not begin at a cluster", it.index,
                         it.found);
    case Kind::kRefcountBlockOutside:
      return fmt::format("refcount table: entry {} is {:#x}: past the end of the file", it.index,
                         it.found);
    case Kind::kRefcountBlockShared:
      return fmt::format("refcount block {} at {:#x} has {} references", it.index, it.host.value(),
                         it.found);
    case Kind::kSnapshotTableUnusable:
      return fmt::format("the snapshot table at {:#x} is invalid", it.host.value());
    case Kind::kSnapshotOffset:
      return fmt::format("there are no snapshots, but the header names a snapshot table at {:#x}",
                         it.found);
    case Kind::kExtensionLength:
      return fmt::format("header extension {:#010x} at {:#x} has a length of {} bytes: {} is {}",
                         it.index, it.entry->value(), it.found, it.expected,
                         it.index == HeaderExtension::kBackingFormat ? "the most" : "right");
    case Kind::kExtensionForeign:
      return fmt::format(
          "the header extension at {:#x} belongs to LUKS, but the image is not encrypted with LUKS",
          it.entry->value());
    case Kind::kExtensionMissing:
      return "the image is encrypted with LUKS, but its header extension is missing";
    case Kind::kLuksPlace:
      return fmt::format("the LUKS header at {:#x}, of {} bytes, has an invalid place or length",
                         it.found, it.expected);
    case Kind::kLuksDamaged:
      return fmt::format(
          "the LUKS header at {:#x} is damaged: without it, no passphrase opens the image",
          it.host.value());
    case Kind::kDataFileRaw:
      return "the header says that the data file is raw, but also that there is no data file";
    case Kind::kSnapshotsTooMany:
      return fmt::format("the header has {} snapshots: too many", it.found);
    case Kind::kSnapshotIncomplete:
      return fmt::format("snapshot {} lacks the size of its VM state or of its disk", it.index);
    case Kind::kSnapshotExtraTooLong:
      return fmt::format("snapshot {} has {} bytes of extra data: too many", it.index, it.found);
    case Kind::kSnapshotL1Unaligned:
      return fmt::format("snapshot {}: its L1 table at {:#x} does not begin at a cluster", it.index,
                         it.found);
    case Kind::kSnapshotL1TooLarge:
      return fmt::format("snapshot {}: its L1 table has {} entries: too many", it.index, it.found);
    case Kind::kSnapshotsWithDataFile:
      return fmt::format("{} snapshots in an image with an external data file", it.found);
    case Kind::kBitmapDirectoryUnusable:
      return fmt::format("the directory of bitmaps at {:#x} is damaged (bitmap {})",
                         it.host.value(), it.index);
    case Kind::kBitmapTableUnusable:
      return fmt::format("bitmap {}: its table is damaged", it.index);
    case Kind::kBitmapTableEntry:
      return fmt::format("bitmap {}: entry {:#x} of its table is invalid", it.index, it.found);
    case Kind::kBitmapInUse:
      return fmt::format(
          "bitmap {} was not stored when the image was last closed: its content is not valid",
          it.index);
    case Kind::kDirty:
      return "the image is marked dirty: it was not closed, its refcounts may be out of date";
    case Kind::kCorruptBit:
      return "the image is marked corrupt: QEMU opens it only for reading";
    case Kind::kLostReferences:
      return lost_text(it);
    case Kind::kUnreadable:
      return fmt::format("the {} at {:#x} cannot be read", to_string(it.place), it.host.value());
    default:
      return {};
  }
}

}  // namespace

const char* to_string(Finding::Kind kind) {
  switch (kind) {
    case Kind::kLeak:
      return "leak";
    case Kind::kRefcountTooLow:
      return "refcount-too-low";
    case Kind::kRefcountOverflow:
      return "refcount-overflow";
    case Kind::kRefcountUnknown:
      return "refcount-unknown";
    case Kind::kRefcountTableUnusable:
      return "refcount-table-unusable";
    case Kind::kRefcountTableReserved:
      return "refcount-table-reserved-bits";
    case Kind::kRefcountBlockUnaligned:
      return "refcount-block-unaligned";
    case Kind::kRefcountBlockOutside:
      return "refcount-block-outside-file";
    case Kind::kRefcountBlockShared:
      return "refcount-block-shared";
    case Kind::kL1Reserved:
      return "l1-reserved-bits";
    case Kind::kL1Copied:
      return "l1-copied-flag";
    case Kind::kL2TableUnaligned:
      return "l2-table-unaligned";
    case Kind::kL2Reserved:
      return "l2-reserved-bits";
    case Kind::kL2Copied:
      return "l2-copied-flag";
    case Kind::kDataUnaligned:
      return "data-unaligned";
    case Kind::kPreallocatedUnaligned:
      return "preallocated-unaligned";
    case Kind::kCompressedCopied:
      return "compressed-copied-flag";
    case Kind::kCompressedInDataFile:
      return "compressed-with-data-file";
    case Kind::kCompressedBitmap:
      return "compressed-with-subclusters";
    case Kind::kSubclusterConflict:
      return "subcluster-allocated-and-zero";
    case Kind::kSubclusterNowhere:
      return "subcluster-without-cluster";
    case Kind::kZeroFlagVersion2:
      return "zero-flag-in-version-2";
    case Kind::kReferenceOutside:
      return "outside-file";
    case Kind::kOverlap:
      return "overlap";
    case Kind::kLostReferences:
      return "lost-references";
    case Kind::kSnapshotTableUnusable:
      return "snapshot-table-unusable";
    case Kind::kSnapshotOffset:
      return "snapshot-offset";
    case Kind::kSnapshotsTooMany:
      return "snapshots-too-many";
    case Kind::kSnapshotIncomplete:
      return "snapshot-incomplete";
    case Kind::kSnapshotExtraTooLong:
      return "snapshot-extra-data-too-long";
    case Kind::kSnapshotL1Unaligned:
      return "snapshot-l1-unaligned";
    case Kind::kSnapshotL1TooLarge:
      return "snapshot-l1-too-large";
    case Kind::kSnapshotsWithDataFile:
      return "snapshots-with-data-file";
    case Kind::kBitmapDirectoryUnusable:
      return "bitmap-directory-unusable";
    case Kind::kBitmapTableUnusable:
      return "bitmap-table-unusable";
    case Kind::kBitmapTableEntry:
      return "bitmap-table-entry";
    case Kind::kBitmapInUse:
      return "bitmap-in-use";
    case Kind::kDirty:
      return "dirty";
    case Kind::kCorruptBit:
      return "marked-corrupt";
    case Kind::kExtensionLength:
      return "header-extension-length";
    case Kind::kExtensionForeign:
      return "header-extension-foreign";
    case Kind::kExtensionMissing:
      return "header-extension-missing";
    case Kind::kDataFileRaw:
      return "data-file-raw";
    case Kind::kLuksPlace:
      return "luks-header-place";
    case Kind::kLuksDamaged:
      return "luks-header-damaged";
    case Kind::kDescriptorTooLong:
      return "descriptor-too-long";
    case Kind::kDescriptorTooShort:
      return "descriptor-too-short";
    case Kind::kStreamTruncated:
      return "stream-truncated";
    case Kind::kStreamDamaged:
      return "stream-damaged";
    case Kind::kUnreadable:
      return "unreadable";
  }
  return "";
}

bool is_entry(Finding::Kind kind) {
  switch (kind) {
    case Kind::kRefcountTableReserved:
    case Kind::kRefcountBlockUnaligned:
    case Kind::kRefcountBlockOutside:
    case Kind::kL1Reserved:
    case Kind::kL1Copied:
    case Kind::kL2TableUnaligned:
    case Kind::kL2Reserved:
    case Kind::kL2Copied:
    case Kind::kDataUnaligned:
    case Kind::kPreallocatedUnaligned:
    case Kind::kCompressedCopied:
    case Kind::kCompressedInDataFile:
    case Kind::kCompressedBitmap:
    case Kind::kSubclusterConflict:
    case Kind::kSubclusterNowhere:
    case Kind::kZeroFlagVersion2:
    case Kind::kOverlap:
    case Kind::kBitmapTableEntry:
    case Kind::kDescriptorTooLong:
    case Kind::kDescriptorTooShort:
    case Kind::kStreamTruncated:
    case Kind::kStreamDamaged:
      return true;
    default:
      return false;
  }
}

const char* to_string(Finding::Severity severity) {
  switch (severity) {
    case Finding::Severity::kNote:
      return "note";
    case Finding::Severity::kLeak:
      return "leak";
    case Finding::Severity::kCorruption:
      return "corruption";
    case Finding::Severity::kCheckError:
      return "check-error";
  }
  return "";
}

const char* to_string(Finding::Place place) {
  switch (place) {
    case Finding::Place::kHeader:
      return "header";
    case Finding::Place::kL1Table:
      return "L1 table";
    case Finding::Place::kL2Table:
      return "L2 table";
    case Finding::Place::kData:
      return "data";
    case Finding::Place::kCompressed:
      return "compressed data";
    case Finding::Place::kRefcountTable:
      return "refcount table";
    case Finding::Place::kRefcountBlock:
      return "refcount block";
    case Finding::Place::kSnapshotTable:
      return "snapshot table";
    case Finding::Place::kBitmapDirectory:
      return "bitmap directory";
    case Finding::Place::kBitmapTable:
      return "bitmap table";
    case Finding::Place::kBitmapData:
      return "bitmap data";
    case Finding::Place::kEncryptionHeader:
      return "encryption header";
  }
  return "";
}

std::string describe(const Finding& finding, uint64_t cluster_size) {
  std::string text = entry_text(finding);
  if (text.empty()) text = structure_text(finding);
  if (finding.kind == Kind::kReferenceOutside)
    text = fmt::format("the {} at {:#x} ({} bytes) is past the end of the file",
                       to_string(finding.place), finding.host.value(), finding.found);
  if (finding.kind == Kind::kOverlap)
    text = fmt::format("{} and {} overlap at {:#x}", to_string(finding.place),
                       to_string(finding.other), finding.host.value());
  if (text.empty()) return refcount_text(finding, cluster_size);
  if (const std::string guest = guest_text(finding); !guest.empty()) text = guest + ": " + text;
  if (finding.entry && finding.place != Finding::Place::kHeader)
    text += fmt::format(" (entry at {:#x})", finding.entry->value());
  if (finding.times > 1) text += fmt::format(", {} times", finding.times);
  return text;
}

}  // namespace vc::qcow2
