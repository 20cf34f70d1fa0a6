#include "qcow2/check/checker.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <thread>
#include <utility>

#include "base/byte_order.h"
#include "qcow2/check/bitmap_scan.h"
#include "qcow2/check/deep_check.h"
#include "qcow2/check/header_scan.h"
#include "qcow2/check/l2_check.h"
#include "qcow2/check/lost_references.h"
#include "qcow2/check/metadata_map.h"
#include "qcow2/check/padded_read.h"
#include "qcow2/check/parallel.h"
#include "qcow2/check/recorded_counts.h"
#include "qcow2/check/snapshot_scan.h"
#include "qcow2/check/table_ranges.h"
#include "qcow2/format/l2_entry.h"
#include "qcow2/format/refcount_block.h"

namespace vc::qcow2 {

namespace {

using Kind = Finding::Kind;
using Place = Finding::Place;
using Severity = Finding::Severity;

// Bits of an L1 entry that must be zero (qcow2 specification, "L1 table entry").
constexpr uint64_t kL1Reserved = 0x7f000000000001ff;
// Bytes of a table of 8-byte entries per read.
constexpr uint64_t kTablePiece = 1 << 20;
// The most L2 tables to keep: 2 PiB of disk with clusters of 64 KiB.
constexpr size_t kMostTables = 4 << 20;
constexpr size_t kCompactAtLeast = 1 << 16;
// Bytes of L2 tables to check together: all their findings are in memory at once.
constexpr uint64_t kChunkBytes = 4 << 20;
constexpr uint64_t kMostTablesAtOnce = 1024;
// Compressed clusters to decode together.
constexpr size_t kDeepSlice = 1024;
// The most compressed clusters at the end of the file to decode.
constexpr unsigned kMostEnds = 4096;
constexpr unsigned kMostPasses = 64;
// A file may have lost as much as its own length, or this many bytes.
constexpr uint64_t kNearEnd = uint64_t{64} << 30;
constexpr unsigned kMostThreads = 64;
// Offsets of header fields.
constexpr uint64_t kL1TableField = 40;
constexpr uint64_t kRefcountTableField = 48;
constexpr uint64_t kIncompatibleField = 72;

// Sorts by offset, and merges entries with the same offset.
void compact(std::vector<TableReference>& tables) {
  std::sort(tables.begin(), tables.end(), [](const TableReference& a, const TableReference& b) {
    // The active one first: it determines the guest offset of the table.
    if (a.at != b.at) return a.at < b.at;
    if ((a.active > 0) != (b.active > 0)) return a.active > 0;
    return std::pair(a.snapshot, a.l1_index) < std::pair(b.snapshot, b.l1_index);
  });
  size_t kept = 0;
  for (size_t i = 0; i < tables.size(); ++i) {
    if (kept > 0 && tables[kept - 1].at == tables[i].at) {
      tables[kept - 1].active += tables[i].active;
      tables[kept - 1].inactive += tables[i].inactive;
    } else {
      tables[kept++] = tables[i];
    }
  }
  tables.resize(kept);
}

class SilentObserver final : public CheckObserver {
 public:
  explicit SilentObserver(CheckObserver& observer) : observer_(observer) {}
  void found(const Finding&) override {}
  void progress(uint64_t done, uint64_t total) override { observer_.progress(done, total); }
  bool cancelled() override { return observer_.cancelled(); }

 private:
  CheckObserver& observer_;
};

}  // namespace

class Checker::Work {
 public:
  static Result<std::unique_ptr<Work>> open(const Storage& storage, const CheckOptions& options) {
    std::unique_ptr<Work> it(new Work(storage, options));
    ASSIGN_OR_RETURN(it->file_size_, storage.size());
    ASSIGN_OR_RETURN(it->header_, Header::read(storage, Header::Purpose::kCheck));
    it->geometry_ = it->header_.geometry();
    it->clusters_ = it->geometry_.clusters_for(it->file_size_);
    it->deep_.emplace(storage, it->header_, it->file_size_);
    if (it->options_.threads == 0) it->options_.threads = std::thread::hardware_concurrency();
    it->options_.threads = std::clamp(it->options_.threads, 1u, kMostThreads);
    return it;
  }

  const Header& header() const { return header_; }
  uint64_t clusters() const { return clusters_; }

  Result<CheckSums> run(CheckObserver& observer) {
    known_unreadable_ = UINT64_MAX;
    RETURN_IF_ERROR(
        traverse(true, observer, [&](ReferenceCounts& counts) { return compare(counts); }));
    if (lost_.judge(sums_.needs_rebuild, sums_.references_unknown,
                    [this](const Finding& it) { observer_->found(it); }))
      sums_.references_unknown = sums_.references_lost = true;
    known_unreadable_ = unreadable_;
    sums_.order = order_->figures();
    sums_.image_end_offset = (highest_ + 1) << geometry_.cluster_bits();
    return sums_;
  }

  Result<void> count(bool with_refcounts, CheckObserver& observer, const Visit& visit) {
    SilentObserver silent(observer);
    return traverse(with_refcounts, silent,
                    [&](const ReferenceCounts& counts) { return visit(counts); });
  }

 private:
  Work(const Storage& storage, const CheckOptions& options)
      : storage_(storage), options_(options) {}

  // Walks all references, window by window.
  template <typename Window>
  Result<void> traverse(bool with_refcounts, CheckObserver& observer, const Window& window) {
    observer_ = &observer;
    sums_ = {};
    // QEMU's disks have whole sectors.
    sums_.total_clusters =
        geometry_.clusters_for(header_.size / Geometry::kSectorSize * Geometry::kSectorSize);
    highest_ = 0;
    decoded_ends_ = 0;
    done_ = 0;
    reporting_ = true;
    metadata_ = {};
    lost_ = LostReferences(storage_, header_, file_size_);
    order_.emplace(geometry_);
    RETURN_IF_ERROR(prepare(with_refcounts));
    const size_t most_pages =
        std::max<size_t>(options_.count_memory / ReferenceCounts::kPageClusters, 1);
    HostCluster begin(0);
    for (unsigned pass = 1;; ++pass) {
      if (pass > kMostPasses)
        return fail(Error::unsupported(fmt::format(
            "the references of the image are too far apart to be counted in {} passes of {} MiB",
            kMostPasses, options_.count_memory >> 20)));
      sums_.passes = pass;
      ReferenceCounts counts(begin, most_pages);
      counts_ = &counts;
      unreadable_ = 0;
      RETURN_IF_ERROR(refer_all(with_refcounts));
      // A table that was readable before must not be omitted from the counts.
      if (unreadable_ > known_unreadable_)
        return fail(
            Error::system(EIO, fmt::format("{}: {} tables cannot be read that were read before",
                                           storage_.name(), unreadable_ - known_unreadable_)));
      if (known_unreadable_ == UINT64_MAX) known_unreadable_ = unreadable_;
      RETURN_IF_ERROR(window(counts));
      reporting_ = false;
      begin = counts.end();
      if (begin.value() == ReferenceCounts::kNoEnd || begin.value() > clusters_) break;
    }
    return {};
  }

  Result<void> prepare(bool with_refcounts) {
    const auto found = [this](const Finding& it) { report(it); };
    const auto note = [&](Kind kind) {
      Finding it{};
      it.kind = kind;
      it.severity = Severity::kNote;
      it.place = Place::kHeader;
      it.entry = HostOffset(kIncompatibleField);
      it.found = header_.incompatible_features;
      it.repairable = true;
      report(it);
    };
    if ((header_.incompatible_features & incompatible::kDirty) != 0) note(Kind::kDirty);
    if ((header_.incompatible_features & incompatible::kCorrupt) != 0) note(Kind::kCorruptBit);
    RETURN_IF_ERROR(scan_header(storage_, header_, found));
    ASSIGN_OR_RETURN(snapshots_, SnapshotScan::read(storage_, header_, found));
    ASSIGN_OR_RETURN(bitmaps_, BitmapScan::read(storage_, header_, found));
    incomplete_ = !snapshots_.complete || !bitmaps_.complete;
    if (incomplete_ || !snapshots_.all_walkable) sums_.references_unknown = true;
    ASSIGN_OR_RETURN(recorded_,
                     RecordedCounts::load(storage_, header_, file_size_, options_.threads));
    if (!recorded_->usable() && with_refcounts) {
      Finding it{};
      it.kind = Kind::kRefcountTableUnusable;
      it.place = Place::kRefcountTable;
      it.host = header_.refcount_table;
      it.entry = HostOffset(kRefcountTableField);
      it.found = header_.refcount_table_clusters;
      it.repairable = true;
      no_refcounts();
      report(it);
    }
    for (const HostOffset block : recorded_->unreadable()) unreadable(Place::kRefcountBlock, block);
    return {};
  }

  Result<void> refer_all(bool with_refcounts) {
    refer(Place::kHeader, HostOffset(0), geometry_.cluster_size(), HostOffset(0));
    if (with_refcounts && recorded_->usable())
      refer(Place::kRefcountTable, header_.refcount_table, recorded_->table().size() * 8,
            HostOffset(kRefcountTableField));
    refer(Place::kSnapshotTable, header_.snapshot_table, snapshots_.bytes, HostOffset(64));
    refer_encryption_header();
    RETURN_IF_ERROR(refer_bitmaps());
    if (with_refcounts && reporting_) add_blocks_to_metadata();
    RETURN_IF_ERROR(refer_tables());
    if (with_refcounts) refer_refcount_blocks();
    return {};
  }

  // Adds a reference of the entry at `entry` to each cluster in the `length` bytes at `at`.
  void refer(Place place, HostOffset at, uint64_t length, HostOffset entry, uint64_t times = 1) {
    if (length == 0) return;
    if (L2Check::outside(at, length, file_size_, geometry_.cluster_size())) {
      report_outside(place, at, length, entry, times);
      return;
    }
    // Data may end inside the last cluster.  A table must not.
    if (place == Place::kL1Table && at.value() + length > file_size_)
      report_outside(place, at, length, entry, times);
    const uint64_t first = geometry_.host_cluster_of(at).value();
    const uint64_t end = geometry_.host_cluster_of(at + (length - 1)).value() + 1;
    counts_->add(HostCluster(first), end - first, times);
    if (reporting_ && place != Place::kBitmapData) metadata_.add(first, end - first, place);
  }

  void report_outside(Place place, HostOffset at, uint64_t length, HostOffset entry,
                      uint64_t times) {
    Finding it{};
    it.kind = Kind::kReferenceOutside;
    it.place = place;
    it.times = times;
    it.host = at;
    it.entry = entry;
    it.found = length;
    report(it);
  }

  void refer_encryption_header() {
    const HeaderExtension* const luks = header_.find_extension(HeaderExtension::kLuks);
    if (header_.crypt_method != CryptMethod::kLuks || luks == nullptr || luks->data.size() < 16)
      return;
    refer(Place::kEncryptionHeader, HostOffset(load_be64(luks->data.data())),
          load_be64(luks->data.data() + 8), HostOffset(0));
  }

  // Calls `entry (offset of the entry, word, piece)` for all nonzero words of the tables.
  template <typename Entry>
  Result<void> for_each_word(Place place, const TableRanges& tables, uint32_t active,
                             const Entry& entry) {
    std::vector<uint64_t> words;
    for (const TableRanges::Piece& piece : tables.pieces(active)) {
      const uint64_t there =
          piece.at.value() < file_size_
              ? std::min(piece.length, (file_size_ - piece.at.value() + 7) / 8 * 8)
              : 0;
      for (uint64_t done = 0; done < there;) {
        RETURN_IF_ERROR(go_on());
        const HostOffset at = piece.at + done;
        const uint64_t length = std::min(there - done, kTablePiece);
        done += length;
        if (is_hole(storage_, file_size_, at, length)) continue;
        words.resize(length / 8);
        if (!read_padded(storage_, at, std::as_writable_bytes(std::span(words)))) {
          unreadable(place, at);
          continue;
        }
        for (uint64_t i = 0; i < words.size(); ++i)
          if (words[i] != 0) RETURN_IF_ERROR(entry(at + i * 8, swap_if_little(words[i]), piece));
      }
    }
    return {};
  }

  Result<void> refer_bitmaps() {
    refer(Place::kBitmapDirectory, bitmaps_.directory, bitmaps_.directory_bytes, HostOffset(0));
    TableRanges tables;
    for (const BitmapScan::Table& table : bitmaps_.tables) {
      refer(Place::kBitmapTable, table.at, table.bytes, bitmaps_.directory);
      if (reporting_ && !table.in_use) lost_.add_bitmap(table.at, table.bytes, table.bitmap);
      if (table.at.value() <= INT64_MAX - table.bytes)
        tables.add(table.at, table.bytes, table.bitmap);
    }
    return for_each_word(
        Place::kBitmapTable, tables, Finding::kActive,
        [&](HostOffset at, uint64_t word, const TableRanges::Piece& piece) -> Result<void> {
          const HostOffset data(word & kEntryOffsetMask);
          if (BitmapScan::bad_entry(word, geometry_.cluster_size())) {
            Finding it{};
            it.kind = Kind::kBitmapTableEntry;
            it.place = Place::kBitmapTable;
            it.times = piece.times;
            it.host = data;
            it.entry = at;
            it.found = word;
            it.index = piece.owner;
            report(it);
          } else if (data.value() != 0) {
            refer(Place::kBitmapData, data, geometry_.cluster_size(), at, piece.times);
          }
          return {};
        });
  }

  // Adds the references to L1 and L2 tables.
  Result<void> refer_tables() {
    TableRanges l1_tables;
    const auto add = [&](HostOffset at, uint64_t entries, uint32_t owner, HostOffset entry) {
      refer(Place::kL1Table, at, entries * 8, entry);
      // A table that no file can contain is not walked; refer () has reported it.
      if (at.value() > INT64_MAX - entries * 8) return;
      l1_tables.add(at, entries * 8, owner);
      if (reporting_) lost_.add_l1(at, entries, owner);
    };
    add(header_.l1_table, header_.l1_entries, Finding::kActive, HostOffset(kL1TableField));
    for (uint32_t i = 0; i < snapshots_.rows.size(); ++i)
      if (snapshots_.rows[i].walkable)
        add(snapshots_.rows[i].l1_table, snapshots_.rows[i].l1_entries, i, header_.snapshot_table);

    std::vector<TableReference> tables;
    size_t compacted = 0;
    const auto take_word = [&](HostOffset at, uint64_t word,
                               const TableRanges::Piece& piece) -> Result<void> {
      refer_table(at, word, piece, tables);
      // Snapshots mostly point to the same tables.
      if (tables.size() < 2 * compacted + kCompactAtLeast) return {};
      compact(tables);
      compacted = tables.size();
      if (compacted < kMostTables) return {};
      RETURN_IF_ERROR(walk(tables));
      tables.clear();
      compacted = 0;
      return {};
    };
    RETURN_IF_ERROR(for_each_word(Place::kL1Table, l1_tables, Finding::kActive, take_word));
    compact(tables);
    return walk(tables);
  }

  void refer_table(HostOffset at, uint64_t word, const TableRanges::Piece& piece,
                   std::vector<TableReference>& tables) {
    TableReference table;
    table.at = HostOffset(word & kEntryOffsetMask);
    table.active = piece.active ? 1 : 0;
    table.inactive = piece.times;
    table.snapshot = piece.owner;
    table.l1_index = (at - piece.owner_at) / 8;
    const auto tell = [&](Kind kind, uint64_t times, uint64_t expected, bool repairable) {
      Finding it{};
      it.kind = kind;
      it.place = Place::kL1Table;
      it.times = times;
      it.host = table.at;
      it.guest = GuestOffset(table.l1_index * geometry_.l2_reach());
      it.entry = at;
      it.found = word;
      it.expected = expected;
      it.snapshot = table.snapshot;
      it.index = table.l1_index;
      it.table_references = table.times();
      it.repairable = repairable;
      report(it);
    };
    if ((word & kL1Reserved) != 0)
      tell(Kind::kL1Reserved, table.times(), word & ~kL1Reserved, true);
    if (table.at.value() == 0) {
      if ((word & kEntryCopied) != 0) tell(Kind::kL1Copied, table.times(), 0, true);
      return;
    }
    if (piece.active) {
      const auto one = recorded_->is_one(geometry_.host_cluster_of(table.at));
      if (one && *one != ((word & kEntryCopied) != 0))
        tell(Kind::kL1Copied, 1, word ^ kEntryCopied, true);
    }
    if (geometry_.offset_in_cluster(table.at.value()) != 0) {
      tell(Kind::kL2TableUnaligned, table.times(), 0, false);
      refer(Place::kData, table.at, geometry_.cluster_size(), at, table.times());
      return;
    }
    if (L2Check::outside(table.at, geometry_.cluster_size(), file_size_,
                         geometry_.cluster_size())) {
      tell(Kind::kReferenceOutside, table.times(), 0, false);
      return;
    }
    if (table.at.value() + geometry_.cluster_size() > file_size_)
      tell(Kind::kReferenceOutside, table.times(), 0, false);
    tables.push_back(table);
  }

  // Adds all references of the tables; each table must be listed once.  Sorts tables of the active
  // disk first, in guest order.
  Result<void> walk(std::vector<TableReference>& tables) {
    std::sort(tables.begin(), tables.end(), [](const TableReference& a, const TableReference& b) {
      if ((a.active > 0) != (b.active > 0)) return a.active > 0;
      return a.active > 0 ? a.l1_index < b.l1_index : a.at < b.at;
    });
    for (const TableReference& table : tables)
      refer(Place::kL2Table, table.at, geometry_.cluster_size(), HostOffset(0), table.times());
    if (reporting_) finish_metadata();
    total_ = done_ + tables.size() * geometry_.cluster_size();
    const size_t chunk =
        std::clamp<uint64_t>(kChunkBytes >> geometry_.cluster_bits(), 1, kMostTablesAtOnce);
    for (size_t at = 0; at < tables.size(); at += chunk) {
      RETURN_IF_ERROR(
          walk_chunk(std::span(tables).subspan(at, std::min(chunk, tables.size() - at))));
    }
    return {};
  }

  // Adds the clusters of the refcount blocks.  Duplicate blocks are reported elsewhere.
  void add_blocks_to_metadata() {
    std::vector<uint64_t> blocks;
    for (uint64_t i = recorded_->next_block(0); i < recorded_->table().size();
         i = recorded_->next_block(i + 1))
      if (const auto block = recorded_->block_of(i); block && block->value() < file_size_)
        blocks.push_back(geometry_.host_cluster_of(*block).value());
    std::sort(blocks.begin(), blocks.end());
    blocks.erase(std::unique(blocks.begin(), blocks.end()), blocks.end());
    for (const uint64_t block : blocks) metadata_.add(block, 1, Place::kRefcountBlock);
  }

  void finish_metadata() {
    metadata_.finish([&](const MetadataMap::Range& a, const MetadataMap::Range& b) {
      // The same table from two batches of tables.
      if (a.place == Place::kL2Table && b.place == Place::kL2Table) return;
      Finding it{};
      it.kind = Kind::kOverlap;
      it.place = b.place;
      it.other = a.place;
      it.host = HostOffset(b.first << geometry_.cluster_bits());
      report(it);
    });
  }

  Result<void> walk_chunk(std::span<const TableReference> tables) {
    RETURN_IF_ERROR(go_on());
    std::vector<TableResult> results(tables.size());
    std::vector<char> failed(tables.size());
    std::vector<std::vector<ZeroedTable>> zeroed(tables.size());
    const L2Check check(header_, file_size_, *recorded_, metadata_);
    parallel_for(tables.size(), options_.threads, [&](size_t i) {
      if (is_hole(storage_, file_size_, tables[i].at, geometry_.cluster_size())) {
        find_zeroed_parts(tables[i], {}, geometry_, zeroed[i]);
        return;
      }
      std::vector<std::byte> bytes(geometry_.cluster_size());
      if (!read_padded(storage_, tables[i].at, bytes)) {
        failed[i] = 1;
        return;
      }
      find_zeroed_parts(tables[i], bytes, geometry_, zeroed[i]);
      check.check(tables[i], static_cast<uint32_t>(i), bytes, options_.deep, results[i]);
      for (const ClusterRun& run : results[i].runs)
        counts_->add(HostCluster(run.first), run.count, tables[i].times());
    });
    for (size_t i = 0; i < tables.size(); ++i) {
      if (failed[i] != 0) unreadable(Place::kL2Table, tables[i].at);
      for (const Finding& finding : results[i].findings) report(finding);
      if (reporting_) {
        lost_.add(zeroed[i]);
        sums_.allocated_clusters += results[i].sums.allocated * tables[i].active;
        sums_.fragmented_clusters += results[i].sums.fragmented * tables[i].active;
        sums_.compressed_clusters += results[i].sums.compressed * tables[i].active;
        for (const ReadPiece& piece : results[i].reads) {
          if (piece.compressed)
            order_->compressed(piece.at, piece.length);
          else
            order_->plain(piece.at, piece.length);
        }
      }
    }
    for (size_t i = 0; i < tables.size(); ++i) look_at_ends(tables[i], results[i].at_end);
    if (options_.deep)
      for (size_t i = 0; i < tables.size(); ++i) {
        RETURN_IF_ERROR(decode_all(tables, results[i].compressed));
        progress(geometry_.cluster_size());
      }
    else
      progress(tables.size() * geometry_.cluster_size());
    return {};
  }

  // Checks streams that the end of the file may have truncated, by decoding them.
  void look_at_ends(const TableReference& table, std::span<const CompressedReference> all) {
    if (!reporting_) return;
    for (const CompressedReference& it : all) {
      const auto descriptor = CompressedDescriptor::decode(it.word, geometry_.cluster_bits());
      // Those past the end are reported already.
      if (decoded_ends_ >= kMostEnds ||
          L2Check::outside(descriptor.offset, descriptor.readable_bytes(), file_size_,
                           geometry_.cluster_size()))
        continue;
      ++decoded_ends_;
      auto answer = deep_->check(it);
      if (answer.decoded || !answer.finding) continue;
      answer.finding->times = table.times();
      answer.finding->snapshot = table.snapshot;
      report(*answer.finding);
    }
  }

  Result<void> decode_all(std::span<const TableReference> tables,
                          std::span<const CompressedReference> all) {
    std::vector<DeepCheck::Answer> answers;
    for (size_t from = 0; from < all.size(); from += kDeepSlice) {
      const auto slice = all.subspan(from, std::min(kDeepSlice, all.size() - from));
      answers.assign(slice.size(), {});
      parallel_for(slice.size(), options_.threads,
                   [&](size_t i) { answers[i] = deep_->check(slice[i]); });
      for (size_t i = 0; i < slice.size(); ++i) take(tables[slice[i].table], slice[i], answers[i]);
      RETURN_IF_ERROR(go_on());
    }
    return {};
  }

  void take(const TableReference& table, const CompressedReference& cluster,
            DeepCheck::Answer& answer) {
    if (reporting_) {
      sums_.decoded_clusters += answer.decoded ? 1 : 0;
      sums_.undecodable_clusters += answer.decoded ? 0 : 1;
    }
    const auto tell = [&](Finding it) {
      it.times = table.times();
      it.snapshot = table.snapshot;
      report(it);
    };
    if (answer.finding) tell(*answer.finding);
    const auto descriptor = CompressedDescriptor::decode(cluster.word, geometry_.cluster_bits());
    const uint64_t first = geometry_.host_cluster_of(descriptor.offset).value();
    const uint64_t count =
        geometry_.host_cluster_of(descriptor.offset + (answer.length - 1)).value() + 1 - first;
    counts_->add(HostCluster(first), count, table.times());
    if (const auto* const metadata = metadata_.find(first, count)) {
      Finding it{};
      it.kind = Kind::kOverlap;
      it.place = Place::kCompressed;
      it.other = metadata->place;
      it.host = HostOffset(std::max(first, metadata->first) << geometry_.cluster_bits());
      it.guest = cluster.guest;
      it.entry = cluster.entry;
      it.found = cluster.word;
      tell(it);
    }
  }

  // Returns the end of the clusters to count: those of the file, and one more if it is referenced.
  uint64_t end_of_clusters() const {
    return clusters_ + (counts_->get(HostCluster(clusters_)) > 0 ? 1 : 0);
  }

  void refer_refcount_blocks() {
    const auto& table = recorded_->table();
    const uint64_t most = max_refcount(header_.refcount_order);
    for (uint64_t i = 0; i < table.size(); ++i) {
      if (table[i] == 0) continue;
      Finding it{};
      it.place = Place::kRefcountTable;
      it.entry = header_.refcount_table + i * 8;
      it.found = table[i];
      it.index = i;
      it.repairable = true;
      const auto tell = [&](Kind kind) {
        it.kind = kind;
        report(it);
      };
      const auto block = recorded_->block_of(i);
      it.host = HostOffset(table[i] & ~RecordedCounts::kReservedMask);
      if ((table[i] & RecordedCounts::kReservedMask) != 0) {
        no_refcounts();
        tell(Kind::kRefcountTableReserved);
        continue;
      }
      if (!block) {
        no_refcounts();
        tell(Kind::kRefcountBlockUnaligned);
        continue;
      }
      const HostCluster cluster = geometry_.host_cluster_of(*block);
      if (cluster.value() >= clusters_ &&
          (cluster.value() > clusters_ || counts_->get(cluster) == 0)) {
        no_refcounts();
        tell(Kind::kRefcountBlockOutside);
        continue;
      }
      if (cluster < counts_->begin() || cluster >= counts_->end()) continue;
      counts_->add(cluster, 1, 1);
      it.found = std::min<uint64_t>(counts_->get(cluster), most);
      if (it.found == 1) continue;
      it.place = Place::kRefcountBlock;
      no_refcounts();
      it.kind = Kind::kRefcountBlockShared;
      report(it, true);
    }
  }

  // Compares the recorded counts with the references.
  Result<void> compare(const ReferenceCounts& counts) {
    const uint64_t limit = std::min(end_of_clusters(), counts.end().value());
    const uint64_t per_block = recorded_->per_block();
    std::vector<uint32_t> referred(std::min(per_block, ReferenceCounts::kPageClusters));
    std::vector<std::byte> block(geometry_.cluster_size());
    uint64_t block_index = UINT64_MAX;  // of `block`
    bool block_there = false, block_known = true;
    uint64_t at = counts.begin().value();
    while (at < limit) {
      const uint64_t next = recorded_->next_block(at / per_block);
      const uint64_t block_begin =
          next < recorded_->table().size() ? next * per_block : ReferenceCounts::kNoEnd;
      at = std::max(at, std::min(counts.next_page(at), block_begin));
      if (at >= limit) break;
      const uint64_t stop =
          std::min({limit, (at / per_block + 1) * per_block,
                    (at / ReferenceCounts::kPageClusters + 1) * ReferenceCounts::kPageClusters});
      if (at / per_block != block_index) {
        RETURN_IF_ERROR(go_on());
        block_index = at / per_block;
        block_known = recorded_->block_of(block_index).has_value();
        const auto read = recorded_->read_block(block_index, block);
        block_there = read && *read;
        if (!read) block_known = false;
      }
      const bool any = counts.copy(HostCluster(at), std::span(referred).first(stop - at));
      for (uint64_t cluster = at; cluster < stop && (any || block_there || !block_known); ++cluster)
        compare_cluster(
            cluster, block_known,
            block_there ? get_refcount(block, cluster % per_block, recorded_->order()) : 0,
            any ? referred[cluster - at] : 0);
      at = stop;
    }
    end_run();
    return {};
  }

  void compare_cluster(uint64_t cluster, bool known, uint64_t recorded, uint64_t references) {
    const uint64_t most = max_refcount(header_.refcount_order);
    if (references > most) {
      Finding it{};
      it.kind = Kind::kRefcountOverflow;
      it.times = references - most;
      it.host = HostOffset(cluster << geometry_.cluster_bits());
      it.found = references;
      it.expected = most;
      report(it, true);
      references = most;
    }
    if (!known) {
      add_to_run(Kind::kRefcountUnknown, Severity::kCheckError, cluster, 0, references);
      return;
    }
    if (recorded != 0 || references != 0) highest_ = cluster;
    if (recorded == references) return;
    if (recorded == 0) sums_.needs_rebuild = true;
    if (recorded > references)
      add_to_run(Kind::kLeak, Severity::kLeak, cluster, recorded, references);
    else
      add_to_run(Kind::kRefcountTooLow, Severity::kCorruption, cluster, recorded, references);
  }

  // Merges findings about consecutive clusters with the same damage into one.
  void add_to_run(Kind kind, Severity severity, uint64_t cluster, uint64_t found,
                  uint64_t expected) {
    const HostOffset at(cluster << geometry_.cluster_bits());
    if (run_ && run_->kind == kind && run_->found == found && run_->expected == expected &&
        run_->host + (run_->times << geometry_.cluster_bits()) == at) {
      ++run_->times;
      return;
    }
    end_run();
    run_ = Finding{};
    run_->kind = kind;
    run_->severity = severity;
    run_->host = at;
    run_->found = found;
    run_->expected = expected;
    run_->repairable = true;
  }

  void end_run() {
    if (run_) report(*run_, true);
    run_.reset();
  }

  void no_refcounts() {
    sums_.needs_rebuild = true;
    sums_.refcounts_unusable = true;
  }

  // Returns whether this damage may hide existing references.
  static bool hides_references(Kind kind) {
    switch (kind) {
      case Kind::kUnreadable:
      case Kind::kReferenceOutside:
      case Kind::kOverlap:
      case Kind::kL2TableUnaligned:
      case Kind::kCompressedInDataFile:
      case Kind::kCompressedBitmap:
      case Kind::kBitmapTableUnusable:
      case Kind::kBitmapTableEntry:
        return true;
      default:
        return false;
    }
  }

  void remember_outside(const Finding& it) {
    const uint64_t limit = file_size_ + std::max(file_size_, kNearEnd);
    const uint64_t length = it.place == Place::kL1Table ? geometry_.cluster_size() : it.found;
    if (length > limit || it.host.value() > limit - length) return;
    sums_.end_of_outside =
        std::max(sums_.end_of_outside, geometry_.clusters_for(it.host.value() + length));
  }

  void unreadable(Place place, HostOffset at) {
    Finding it{};
    it.kind = Kind::kUnreadable;
    it.severity = Severity::kCheckError;
    it.place = place;
    it.host = at;
    report(it);
  }

  // Reports a finding.  Findings that each pass repeats are reported in the first pass only, unless
  // `any_pass`.
  void report(Finding it, bool any_pass = false) {
    if (it.kind == Kind::kUnreadable) ++unreadable_;
    if (!reporting_ && !any_pass) return;
    if (hides_references(it.kind)) sums_.references_unknown = true;
    if (it.kind == Kind::kUnreadable) sums_.unreadable = true;
    if (it.kind == Kind::kReferenceOutside) remember_outside(it);
    if (it.kind == Kind::kOverlap) {
      // If the counts disagree, the sums already include the damage.
      const auto recorded = recorded_->get(geometry_.host_cluster_of(it.host));
      if (!recorded || !*recorded || **recorded < 2) it.severity = Severity::kNote;
    }
    switch (it.severity) {
      case Severity::kNote:
        break;
      case Severity::kLeak:
        // The references to it may just be unknown.
        if (incomplete_) return;
        sums_.leaks += it.times;
        lost_.add_leak(geometry_.host_cluster_of(it.host), it.times, it.expected);
        break;
      case Severity::kCorruption:
        sums_.corruptions += it.times;
        break;
      case Severity::kCheckError:
        sums_.check_errors += it.times;
        break;
    }
    observer_->found(it);
  }

  void progress(uint64_t bytes) {
    if (!reporting_) return;
    done_ += bytes;
    observer_->progress(done_, total_);
  }

  Result<void> go_on() {
    if (observer_->cancelled()) return fail(Error::cancelled());
    return {};
  }

  const Storage& storage_;
  CheckOptions options_;
  Header header_;
  Geometry geometry_;
  uint64_t file_size_ = 0;
  uint64_t clusters_ = 0;  // of the file, including a partial last one
  std::optional<DeepCheck> deep_;

  // The state of a traversal:
  CheckObserver* observer_ = nullptr;
  CheckSums sums_;
  SnapshotScan snapshots_;
  BitmapScan bitmaps_;
  std::optional<RecordedCounts> recorded_;
  bool incomplete_ = false;  // some references are unknown
  MetadataMap metadata_;
  LostReferences lost_;
  ReferenceCounts* counts_ = nullptr;  // of this pass
  bool reporting_ = true;              // in the first pass
  uint64_t unreadable_ = 0;  // unreadable tables in this pass; of these, known from the first pass:
  uint64_t known_unreadable_ = UINT64_MAX;
  std::optional<Finding> run_;
  std::optional<Fragmentation> order_;
  uint64_t highest_ = 0;
  unsigned decoded_ends_ = 0;
  uint64_t done_ = 0, total_ = 0;  // bytes
};

Checker::Checker(std::unique_ptr<Work> work) : work_(std::move(work)) {}
Checker::Checker(Checker&&) noexcept = default;
Checker& Checker::operator=(Checker&&) noexcept = default;
Checker::~Checker() = default;

Result<Checker> Checker::open(const Storage& storage, const CheckOptions& options) {
  auto work = with_context(Work::open(storage, options), storage.name());
  if (!work) return fail(std::move(work).error());
  return Checker(std::move(*work));
}

const Header& Checker::header() const {
  return work_->header();
}

uint64_t Checker::clusters() const {
  return work_->clusters();
}

Result<CheckSums> Checker::run(CheckObserver& observer) {
  return work_->run(observer);
}

Result<void> Checker::count(bool with_refcounts, CheckObserver& observer, const Visit& visit) {
  return work_->count(with_refcounts, observer, visit);
}

}  // namespace vc::qcow2
