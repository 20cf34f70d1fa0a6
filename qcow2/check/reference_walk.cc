#include "qcow2/check/reference_walk.h"

#include <algorithm>
#include <vector>

#include "base/byte_order.h"
#include "qcow2/format/bitmap_directory.h"
#include "qcow2/format/encryption.h"
#include "qcow2/format/header_fields.h"
#include "qcow2/format/l2_entry.h"
#include "storage/padded_read.h"

namespace vc::qcow2 {

namespace {

using Kind = Finding::Kind;
using Place = Finding::Place;

// Bytes of a table of 8-byte entries per read.
constexpr uint64_t kTablePiece = 1 << 20;

}  // namespace

Result<void> ReferenceWalk::walk(bool with_refcounts, ReferenceCounts& counts) {
  counts_ = &counts;
  const Header& header = image_.header;
  refer(Place::kHeader, HostOffset(0), geometry_.cluster_size(), HostOffset(0));
  if (with_refcounts && scans_.recorded.usable())
    refer(Place::kRefcountTable, header.refcount_table, scans_.recorded.table().size() * 8,
          HostOffset(header_field::kRefcountTable));
  refer(Place::kSnapshotTable, header.snapshot_table, scans_.snapshots.bytes,
        HostOffset(header_field::kSnapshotTable));
  refer_encryption_header();
  RETURN_IF_ERROR(refer_bitmaps());
  if (with_refcounts && tally_.first_pass()) add_blocks_to_metadata();
  return refer_tables();
}

// Adds a reference of the entry at `entry` to each cluster in the `length` bytes at `at`.
void ReferenceWalk::refer(Place place, HostOffset at, uint64_t length, HostOffset entry,
                          uint64_t times) {
  if (length == 0) return;
  if (L2Check::outside(at, length, image_.file_size, geometry_.cluster_size())) {
    report_outside(place, at, length, entry, times);
    return;
  }
  // Data may end inside the last cluster.  A table must not.
  if (place == Place::kL1Table && at.value() + length > image_.file_size)
    report_outside(place, at, length, entry, times);
  const uint64_t first = geometry_.host_cluster_of(at).value();
  const uint64_t end = geometry_.host_cluster_of(at + (length - 1)).value() + 1;
  counts_->add(HostCluster(first), end - first, times);
  if (tally_.first_pass() && place != Place::kBitmapData) metadata_.add(first, end - first, place);
}

void ReferenceWalk::report_outside(Place place, HostOffset at, uint64_t length, HostOffset entry,
                                   uint64_t times) {
  Finding it{};
  it.kind = Kind::kReferenceOutside;
  it.place = place;
  it.times = times;
  it.host = at;
  it.entry = entry;
  it.found = length;
  tally_.report(it);
}

void ReferenceWalk::refer_encryption_header() {
  if (image_.header.crypt_method != CryptMethod::kLuks) return;
  // scan_header() reports what is invalid.
  if (const auto luks = encryption_pointer(image_.header))
    refer(Place::kEncryptionHeader, luks->at, luks->length, HostOffset(0));
}

// Calls `entry (offset of the entry, word, piece)` for all nonzero words of the tables.
template <typename Entry>
Result<void> ReferenceWalk::for_each_word(Place place, const TableRanges& tables, uint32_t active,
                                          const Entry& entry) {
  const uint64_t file_size = image_.file_size;
  std::vector<uint64_t> words;
  for (const TableRanges::Piece& piece : tables.pieces(active)) {
    const uint64_t there = piece.at.value() < file_size
                               ? std::min(piece.length, (file_size - piece.at.value() + 7) / 8 * 8)
                               : 0;
    for (uint64_t done = 0; done < there;) {
      RETURN_IF_ERROR(tally_.go_on());
      const HostOffset at = piece.at + done;
      const uint64_t length = std::min(there - done, kTablePiece);
      done += length;
      if (is_hole(image_.storage, file_size, at, length)) continue;
      words.resize(length / 8);
      if (!read_padded(image_.storage, at, std::as_writable_bytes(std::span(words)))) {
        tally_.report_unreadable(place, at);
        continue;
      }
      for (uint64_t i = 0; i < words.size(); ++i)
        if (words[i] != 0) RETURN_IF_ERROR(entry(at + i * 8, swap_if_little(words[i]), piece));
    }
  }
  return {};
}

Result<void> ReferenceWalk::refer_bitmaps() {
  const BitmapScan& bitmaps = scans_.bitmaps;
  refer(Place::kBitmapDirectory, bitmaps.directory, bitmaps.directory_bytes, HostOffset(0));
  TableRanges tables;
  for (const BitmapScan::Table& table : bitmaps.tables) {
    refer(Place::kBitmapTable, table.at, table.bytes, bitmaps.directory);
    if (tally_.first_pass() && !table.in_use)
      tally_.lost().add_bitmap(table.at, table.bytes, table.bitmap);
    if (table.at.value() <= INT64_MAX - table.bytes)
      tables.add(table.at, table.bytes, table.bitmap);
  }
  return for_each_word(Place::kBitmapTable, tables, Finding::kActive,
                       [&](HostOffset entry, uint64_t word, const TableRanges::Piece& piece) {
                         refer_bitmap_entry(entry, word, piece);
                         return Result<void>{};
                       });
}

void ReferenceWalk::refer_bitmap_entry(HostOffset entry, uint64_t word,
                                       const TableRanges::Piece& piece) {
  const HostOffset data(word & kEntryOffsetMask);
  if (!bitmap_entry_is_bad(word, geometry_.cluster_size())) {
    if (data.value() != 0)
      refer(Place::kBitmapData, data, geometry_.cluster_size(), entry, piece.times);
    return;
  }
  Finding it{};
  it.kind = Kind::kBitmapTableEntry;
  it.place = Place::kBitmapTable;
  it.times = piece.times;
  it.host = data;
  it.entry = entry;
  it.found = word;
  it.index = piece.owner;
  tally_.report(it);
}

TableRanges ReferenceWalk::refer_l1_tables() {
  TableRanges l1_tables;
  const auto add = [&](HostOffset at, uint64_t entries, uint32_t owner, HostOffset entry) {
    refer(Place::kL1Table, at, entries * 8, entry);
    // A table that no file can contain is not walked; refer () has reported it.
    if (at.value() > INT64_MAX - entries * 8) return;
    l1_tables.add(at, entries * 8, owner);
    if (tally_.first_pass()) tally_.lost().add_l1(at, entries, owner);
  };
  const Header& header = image_.header;
  add(header.l1_table, header.l1_entries, Finding::kActive, HostOffset(header_field::kL1Table));
  const auto& rows = scans_.snapshots.rows;
  for (uint32_t i = 0; i < rows.size(); ++i)
    if (rows[i].walkable) add(rows[i].l1_table, rows[i].l1_entries, i, header.snapshot_table);
  return l1_tables;
}

// Adds the references to L1 and L2 tables, and those of their entries.
Result<void> ReferenceWalk::refer_tables() {
  L1Check l1(image_, scans_.recorded, tally_);
  RETURN_IF_ERROR(for_each_word(
      Place::kL1Table, refer_l1_tables(), Finding::kActive,
      [&](HostOffset entry, uint64_t word, const TableRanges::Piece& piece) -> Result<void> {
        if (const auto unaligned = l1.check(entry, word, piece))
          refer(Place::kData, unaligned->at, geometry_.cluster_size(), entry, unaligned->times());
        return l1.is_full() ? walk_tables(l1.take_tables()) : Result<void>{};
      }));
  return walk_tables(l1.take_tables());
}

Result<void> ReferenceWalk::walk_tables(const std::vector<TableReference>& tables) {
  for (const TableReference& table : tables)
    refer(Place::kL2Table, table.at, geometry_.cluster_size(), HostOffset(0), table.times());
  if (tally_.first_pass()) finish_metadata();
  return tables_.walk(tables, metadata_, *counts_);
}

// Adds the clusters of the refcount blocks.  Duplicate blocks are reported elsewhere.
void ReferenceWalk::add_blocks_to_metadata() {
  const RecordedCounts& recorded = scans_.recorded;
  std::vector<uint64_t> blocks;
  for (uint64_t i = recorded.next_block(0); i < recorded.table().size();
       i = recorded.next_block(i + 1))
    if (const auto block = recorded.block_of(i); block && block->value() < image_.file_size)
      blocks.push_back(geometry_.host_cluster_of(*block).value());
  std::sort(blocks.begin(), blocks.end());
  blocks.erase(std::unique(blocks.begin(), blocks.end()), blocks.end());
  for (const uint64_t block : blocks) metadata_.add(block, 1, Place::kRefcountBlock);
}

void ReferenceWalk::finish_metadata() {
  metadata_.finish([&](const MetadataMap::Range& a, const MetadataMap::Range& b) {
    // The same table from two batches of tables.
    if (a.place == Place::kL2Table && b.place == Place::kL2Table) return;
    Finding it{};
    it.kind = Kind::kOverlap;
    it.place = b.place;
    it.other = a.place;
    it.host = HostOffset(b.first << geometry_.cluster_bits());
    tally_.report(it);
  });
}

}  // namespace vc::qcow2
