#include "qcow2/check/l1_check.h"

#include <algorithm>
#include <utility>

#include "qcow2/format/l2_entry.h"
#include "qcow2/format/reserved_bits.h"

namespace vc::qcow2 {

namespace {

using Kind = Finding::Kind;

// The most L2 tables to keep: 2 PiB of disk with clusters of 64 KiB.
constexpr size_t kMostTables = 4 << 20;
constexpr size_t kMergeAtLeast = 1 << 16;

}  // namespace

std::optional<TableReference> L1Check::check(HostOffset entry, uint64_t word,
                                             const TableRanges::Piece& piece) {
  TableReference table;
  table.at = HostOffset(word & kEntryOffsetMask);
  table.active = piece.active ? 1 : 0;
  table.inactive = piece.times;
  table.snapshot = piece.owner;
  table.l1_index = (entry - piece.owner_at) / 8;
  const auto tell = [&](Kind kind, uint64_t times, uint64_t expected, bool repairable) {
    Finding it{};
    it.kind = kind;
    it.place = Finding::Place::kL1Table;
    it.times = times;
    it.host = table.at;
    it.guest = GuestOffset(table.l1_index * geometry_.l2_reach());
    it.entry = entry;
    it.found = word;
    it.expected = expected;
    it.snapshot = table.snapshot;
    it.index = table.l1_index;
    it.table_references = table.times();
    it.repairable = repairable;
    if (kind == Kind::kReferenceOutside) {
      it.place = Finding::Place::kL2Table;
      it.found = geometry_.cluster_size();
    }
    tally_.report(it);
  };
  if ((word & kReservedInL1Entry) != 0)
    tell(Kind::kL1Reserved, table.times(), word & ~kReservedInL1Entry, true);
  if (table.at.value() == 0) {
    if ((word & kEntryCopied) != 0) tell(Kind::kL1Copied, table.times(), 0, true);
    return std::nullopt;
  }
  if (piece.active) {
    const auto one = recorded_.is_one(geometry_.host_cluster_of(table.at));
    if (one && *one != ((word & kEntryCopied) != 0))
      tell(Kind::kL1Copied, 1, word ^ kEntryCopied, true);
  }
  if (geometry_.offset_in_cluster(table.at.value()) != 0) {
    tell(Kind::kL2TableUnaligned, table.times(), 0, false);
    return table;
  }
  const uint64_t cluster_size = geometry_.cluster_size();
  const bool is_outside = L2Check::outside(table.at, cluster_size, image_.file_size, cluster_size);
  if (is_outside || table.at.value() + cluster_size > image_.file_size)
    tell(Kind::kReferenceOutside, table.times(), 0, false);
  if (!is_outside) tables_.push_back(table);
  return std::nullopt;
}

bool L1Check::is_full() {
  // Snapshots mostly point to the same tables.
  if (tables_.size() < 2 * merged_ + kMergeAtLeast) return false;
  merge();
  return merged_ >= kMostTables;
}

// Sorts by offset, and merges references to the same table.
void L1Check::merge() {
  std::sort(tables_.begin(), tables_.end(), [](const TableReference& a, const TableReference& b) {
    // The active one first: it determines the guest offset of the table.
    if (a.at != b.at) return a.at < b.at;
    if ((a.active > 0) != (b.active > 0)) return a.active > 0;
    return std::pair(a.snapshot, a.l1_index) < std::pair(b.snapshot, b.l1_index);
  });
  size_t kept = 0;
  for (const TableReference& table : tables_) {
    if (kept > 0 && tables_[kept - 1].at == table.at) {
      tables_[kept - 1].active += table.active;
      tables_[kept - 1].inactive += table.inactive;
    } else {
      tables_[kept++] = table;
    }
  }
  tables_.resize(kept);
  merged_ = kept;
}

std::vector<TableReference> L1Check::take_tables() {
  merge();
  merged_ = 0;
  std::vector<TableReference> tables = std::exchange(tables_, {});
  std::sort(tables.begin(), tables.end(), [](const TableReference& a, const TableReference& b) {
    if ((a.active > 0) != (b.active > 0)) return a.active > 0;
    return a.active > 0 ? a.l1_index < b.l1_index : a.at < b.at;
  });
  return tables;
}

}  // namespace vc::qcow2
