#include "qcow2/check/bitmap_scan.h"

#include "base/byte_order.h"
#include "qcow2/check/padded_read.h"
#include "qcow2/format/l2_entry.h"

namespace qcow2 {

namespace {

// QCOW2 text, "Bitmaps extension", "Bitmap directory entry", "Bitmap table"; the limits are QEMU's.
constexpr uint64_t kExtensionBytes = 24;
constexpr uint64_t kEntryBytes = 24;
constexpr uint32_t kMostBitmaps = 65535;
constexpr uint64_t kMostDirectoryBytes = kMostBitmaps * (kEntryBytes + 1024);
constexpr uint64_t kMostTableEntries = 0x8000000;
constexpr uint64_t kMostNameBytes = 1023;
constexpr uint32_t kFlagInUse = 1 << 0;
constexpr uint32_t kFlagsReserved = 0xfffffff8;
constexpr unsigned kLeastGranularityBits = 9;
constexpr unsigned kMostGranularityBits = 31;
constexpr unsigned kTypeDirtyTracking = 1;
constexpr uint64_t kTableEntryReserved = 0xff000000000001fe;

}  // namespace

bool BitmapScan::bad_entry(uint64_t entry, uint64_t cluster_size) {
  const uint64_t offset = entry & kEntryOffsetMask;
  return (entry & kTableEntryReserved) != 0 ||
         (offset != 0 && (offset % cluster_size != 0 || (entry & 1) != 0));
}

Result<BitmapScan> BitmapScan::read(const Storage& storage, const Header& header,
                                    const std::function<void(const Finding&)>& found) {
  BitmapScan scan;
  if (header.version < 3 || (header.autoclear_features & autoclear::kBitmaps) == 0) return scan;
  const HeaderExtension* const extension = header.find_extension(HeaderExtension::kBitmaps);
  if (extension == nullptr) return scan;
  const auto unusable = [&](uint64_t index, uint64_t at) {
    Finding it{};
    it.kind = Finding::Kind::kBitmapDirectoryUnusable;
    it.severity = Finding::Severity::kCheckError;
    it.place = Finding::Place::kBitmapDirectory;
    it.host = scan.directory;
    it.entry = HostOffset(at);
    it.index = index;
    found(it);
    scan.complete = false;
    return scan;
  };
  if (extension->data.size() != kExtensionBytes) return unusable(0, 0);
  const std::byte* const from = extension->data.data();
  const uint32_t count = load_be32(from);
  const uint64_t size = load_be64(from + 8);
  scan.directory = HostOffset(load_be64(from + 16));
  const Geometry geometry = header.geometry();
  ASSIGN_OR_RETURN(const uint64_t file_size, storage.size());
  if (load_be32(from + 4) != 0 || count == 0 || count > kMostBitmaps ||
      size > kMostDirectoryBytes || size < count * kEntryBytes || size > file_size ||
      scan.directory.value() == 0 || scan.directory.value() > file_size - size ||
      geometry.offset_in_cluster(scan.directory.value()) != 0)
    return unusable(0, 0);
  scan.directory_bytes = size;
  std::vector<std::byte> bytes(size);
  RETURN_IF_ERROR(with_context(read_padded(storage, scan.directory, bytes), "bitmap directory"));

  uint64_t at = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const uint64_t stands = scan.directory.value() + at;
    if (size - at < kEntryBytes) return unusable(i, stands);
    const std::byte* const entry = bytes.data() + at;
    const HostOffset table(load_be64(entry));
    const uint64_t entries = load_be32(entry + 8);
    const uint32_t flags = load_be32(entry + 12);
    const auto type = std::to_integer<unsigned>(entry[16]);
    const auto granularity = std::to_integer<unsigned>(entry[17]);
    const uint64_t name = load_be16(entry + 18);
    const uint64_t length = (kEntryBytes + name + load_be32(entry + 20) + 7) / 8 * 8;
    if (length > size - at || name == 0 || name > kMostNameBytes || entries == 0 ||
        entries > kMostTableEntries || table.value() == 0 ||
        geometry.offset_in_cluster(table.value()) != 0 || (flags & kFlagsReserved) != 0 ||
        type != kTypeDirtyTracking || granularity < kLeastGranularityBits ||
        granularity > kMostGranularityBits)
      return unusable(i, stands);
    if ((flags & kFlagInUse) != 0) {
      Finding it{};
      it.kind = Finding::Kind::kBitmapInUse;
      it.severity = Finding::Severity::kNote;
      it.place = Finding::Place::kBitmapDirectory;
      it.host = table;
      it.entry = HostOffset(stands);
      it.index = i;
      found(it);
    }
    scan.tables.push_back({table, entries * 8, i, (flags & kFlagInUse) != 0});
    at += length;
  }
  if (at != size) return unusable(count, scan.directory.value() + at);
  return scan;
}

}  // namespace qcow2
