#include "qcow2/repair/snapshot_repair.h"

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "base/byte_order.h"
#include "base/zero_bytes.h"
#include "qcow2/format/header_fields.h"
#include "qcow2/format/snapshot_fields.h"
#include "qcow2/refcounts/refcount_writer.h"
#include "qcow2/refcounts/refcounts.h"

namespace vc::qcow2 {

namespace field = snapshot_field;

namespace {

struct Row {
  std::array<std::byte, field::kFixedBytes> fixed{};
  std::vector<std::byte> extra;
  std::vector<std::byte> names;
};

// Returns nullopt if there is no plausible row.  `guess`: only the content shows that it is a row.
std::optional<Row> read_row(const Storage& storage, const Geometry& geometry, HostOffset& at,
                            bool guess) {
  Row row;
  if (!read_fully(storage, at, row.fixed)) return std::nullopt;
  const uint64_t l1 = load_be64(&row.fixed[field::kL1Table]);
  const uint32_t id = load_be16(&row.fixed[field::kIdLength]),
                 extra = load_be32(&row.fixed[field::kExtraLength]);
  const auto size = storage.size();
  if (!size || id == 0 || l1 == 0 || geometry.offset_in_cluster(l1) != 0 || l1 >= *size ||
      extra > Limits::kSnapshotTableBytes || extra > *size)
    return std::nullopt;
  at += field::kFixedBytes;
  row.extra.resize(extra);
  row.names.resize(id + load_be16(&row.fixed[field::kNameLength]));
  if (!read_fully(storage, at, row.extra) || !read_fully(storage, at + extra, row.names))
    return std::nullopt;
  at += extra + row.names.size();
  at = HostOffset((at.value() + 7) / 8 * 8);
  // An ID is a number as text.
  const auto end = row.names.begin() + id;
  const bool is_text = std::all_of(row.names.begin(), end, [](std::byte it) {
    return it >= std::byte{0x20} && it < std::byte{0x7f};
  });
  guess |= extra > Limits::kSnapshotExtraBytes;
  return is_text || !guess ? std::optional(std::move(row)) : std::nullopt;
}

// Returns whether the row was changed.
bool correct(Row& row, const Header& header) {
  const size_t before = row.extra.size();
  if (before > Limits::kSnapshotExtraBytes) row.extra.resize(Limits::kSnapshotExtraBytes);
  if (header.version >= 3 && before < field::kWithDiskSize) {
    row.extra.resize(field::kWithDiskSize);
    if (before < field::kWithVmStateSize)
      store_be64(&row.extra[field::kExtraVmStateSize], load_be32(&row.fixed[field::kVmStateSize]));
    store_be64(&row.extra[field::kExtraDiskSize], header.size);
  }
  store_be32(&row.fixed[field::kExtraLength], static_cast<uint32_t>(row.extra.size()));
  return row.extra.size() != before;
}

void append(const Row& row, std::vector<std::byte>& table) {
  table.resize((table.size() + 7) / 8 * 8);
  table.insert(table.end(), row.fixed.begin(), row.fixed.end());
  table.insert(table.end(), row.extra.begin(), row.extra.end());
  table.insert(table.end(), row.names.begin(), row.names.end());
}

Result<void> put(const std::shared_ptr<Storage>& storage, const Header& header,
                 std::vector<std::byte> table, uint32_t count) {
  const Geometry geometry = header.geometry();
  ASSIGN_OR_RETURN(const auto refcounts, Refcounts::load(storage, header));
  ASSIGN_OR_RETURN(const auto run, refcounts->allocate_table(geometry.clusters_for(table.size())));
  RETURN_IF_ERROR(write_refcounts(*storage, *refcounts));
  table.resize(run.count << geometry.cluster_bits());
  RETURN_IF_ERROR(storage->write(geometry.start_of(run.first), table));
  RETURN_IF_ERROR(storage->flush());
  RETURN_IF_ERROR(write_snapshot_fields(*storage, count, geometry.start_of(run.first)));
  return storage->flush();
}

}  // namespace

Result<bool> repair_snapshot_table(const std::shared_ptr<Storage>& storage, const Header& header) {
  const bool too_many = header.snapshot_count > Limits::kSnapshots;
  const uint32_t most = std::min(header.snapshot_count, Limits::kSnapshots);
  const Geometry geometry = header.geometry();
  if (geometry.offset_in_cluster(header.snapshot_table.value()) != 0) return false;
  HostOffset at = header.snapshot_table;
  std::vector<std::byte> table;
  uint32_t count = 0;
  bool changed = too_many;
  for (; count < most; ++count) {
    const HostOffset stands = at;
    auto row = read_row(*storage, geometry, at, too_many);
    if (!row) {
      // If the count does not determine it, the table ends with zeros or with the file.
      std::array<std::byte, field::kFixedBytes> rest{};
      const auto got = storage->read(stands, rest);
      if (!too_many || !got || !is_zero(std::span(rest).first(*got))) return false;
      break;
    }
    changed |= correct(*row, header);
    append(*row, table);
    if (table.size() > Limits::kSnapshotTableBytes) return false;
  }
  if (!changed || count == 0) return false;
  RETURN_IF_ERROR(put(storage, header, std::move(table), count));
  return true;
}

}  // namespace vc::qcow2
