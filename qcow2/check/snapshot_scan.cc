#include "qcow2/check/snapshot_scan.h"

#include <array>

#include "base/byte_order.h"
#include "base/rounding.h"
#include "base/zero_bytes.h"
#include "qcow2/format/header_fields.h"
#include "qcow2/format/snapshot_fields.h"
#include "storage/padded_read.h"

namespace vc::qcow2 {

namespace field = snapshot_field;

Result<SnapshotScan> SnapshotScan::read(const Storage& storage, const Header& header,
                                        const std::function<void(const Finding&)>& found) {
  SnapshotScan scan;
  const Geometry geometry = header.geometry();
  const HostOffset begin = header.snapshot_table;
  const auto tell = [&](Finding::Kind kind, Finding::Severity severity, uint64_t index, uint64_t at,
                        uint64_t value, bool repairable) {
    Finding it{};
    it.kind = kind;
    it.severity = severity;
    it.place = Finding::Place::kSnapshotTable;
    it.host = begin;
    it.entry = HostOffset(at);
    it.found = value;
    it.index = index;
    it.repairable = repairable;
    found(it);
  };
  using Kind = Finding::Kind;
  using Severity = Finding::Severity;
  const bool unaligned = geometry.offset_in_cluster(begin.value()) != 0;
  const bool no_place =
      unaligned || begin.value() > static_cast<uint64_t>(INT64_MAX) - Limits::kSnapshotTableBytes;
  if (header.snapshot_count == 0) {
    if (unaligned || begin.value() > static_cast<uint64_t>(INT64_MAX)) {
      // QEMU does not open such an image.
      Finding it{};
      it.kind = Kind::kSnapshotOffset;
      it.place = Finding::Place::kHeader;
      it.entry = HostOffset(header_field::kSnapshotTable);
      it.found = begin.value();
      it.table_references = 1;
      it.repairable = true;
      found(it);
    }
    scan.complete = true;
    return scan;
  }
  if (header.snapshot_count > Limits::kSnapshots) {
    tell(Kind::kSnapshotsTooMany, Severity::kCheckError, 0, header_field::kSnapshotCount,
         header.snapshot_count, true);
    return scan;
  }
  if (no_place) {
    tell(Kind::kSnapshotTableUnusable, Severity::kCheckError, 0, header_field::kSnapshotTable,
         begin.value(), false);
    return scan;
  }

  for (uint32_t i = 0; i < header.snapshot_count; ++i) {
    scan.bytes = round_up(scan.bytes, 8);
    const HostOffset at = begin + scan.bytes;
    std::array<std::byte, field::kFixedBytes> fixed{};
    RETURN_IF_ERROR(with_context(read_padded(storage, at, fixed), "snapshot table"));
    const uint32_t extra = load_be32(&fixed[field::kExtraLength]);
    const uint64_t names =
        uint64_t{load_be16(&fixed[field::kIdLength])} + load_be16(&fixed[field::kNameLength]);
    scan.bytes += field::kFixedBytes + extra + names;
    if (scan.bytes > Limits::kSnapshotTableBytes) {
      tell(Kind::kSnapshotTableUnusable, Severity::kCheckError, i, at.value(), scan.bytes, true);
      scan.bytes = 0;
      return scan;
    }
    if (extra > Limits::kSnapshotExtraBytes) {
      // The start of the next row depends on this field.
      scan.all_walkable = false;
      tell(Kind::kSnapshotExtraTooLong, Severity::kCorruption, i, at.value(), extra, true);
    }
    if (header.version >= 3 && extra < field::kWithDiskSize)
      tell(Kind::kSnapshotIncomplete, Severity::kCorruption, i, at.value(), extra, true);

    // Every snapshot has an ID: a row without one was overwritten.
    if (is_zero(fixed)) scan.all_walkable = false;
    Row row{HostOffset(load_be64(&fixed[field::kL1Table])), load_be32(&fixed[field::kL1Entries]),
            false};
    if (geometry.offset_in_cluster(row.l1_table.value()) != 0)
      tell(Kind::kSnapshotL1Unaligned, Severity::kCorruption, i, at.value(), row.l1_table.value(),
           false);
    else if (row.l1_entries > Limits::kL1Bytes / 8)
      tell(Kind::kSnapshotL1TooLarge, Severity::kCorruption, i, at.value(), row.l1_entries, false);
    else
      row.walkable = true;
    scan.all_walkable &= row.walkable;
    scan.rows.push_back(row);
  }
  if (header.has_data_file())
    tell(Kind::kSnapshotsWithDataFile, Severity::kCorruption, 0, begin.value(),
         header.snapshot_count, false);
  scan.complete = true;
  return scan;
}

}  // namespace vc::qcow2
