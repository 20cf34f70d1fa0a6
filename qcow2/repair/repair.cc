#include "qcow2/repair/repair.h"

#include <fmt/format.h>

#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "base/byte_order.h"
#include "qcow2/format/bitmap_directory.h"
#include "qcow2/format/header_fields.h"
#include "qcow2/format/refcount_block.h"
#include "qcow2/refcounts/refcount_writer.h"
#include "qcow2/refcounts/refcounts.h"
#include "qcow2/repair/block_move.h"
#include "qcow2/repair/deallocation.h"
#include "qcow2/repair/refcount_rebuild.h"
#include "qcow2/repair/snapshot_repair.h"
#include "qcow2/repair/undo_storage.h"

namespace vc::qcow2 {

namespace {

using Kind = Finding::Kind;
using Place = Finding::Place;

// The most findings to repair in one round; the next round finds the rest.
constexpr size_t kMostAtOnce = 1 << 18;
// More than any repairable image needs.
constexpr unsigned kMostRounds = 64;

bool is_copied(Kind kind) {
  return kind == Kind::kL1Copied || kind == Kind::kL2Copied;
}

// Returns whether the repair is to write `expected` at `entry`.
bool can_be_written(Kind kind) {
  switch (kind) {
    case Kind::kL1Reserved:
    case Kind::kL2TableUnaligned:
    case Kind::kL2Reserved:
    case Kind::kDataUnaligned:
    case Kind::kPreallocatedUnaligned:
    case Kind::kCompressedCopied:
    case Kind::kCompressedBitmap:
    case Kind::kSubclusterConflict:
    case Kind::kZeroFlagVersion2:
    case Kind::kDescriptorTooLong:
    case Kind::kDescriptorTooShort:
    case Kind::kBitmapTableEntry:
    case Kind::kSnapshotOffset:
    case Kind::kDataFileRaw:
      return true;
    default:
      return is_copied(kind);
  }
}

// Returns whether writing `expected` may change what the guest reads, or what could not be read.
bool changes_content(Kind kind) {
  switch (kind) {
    case Kind::kCompressedCopied:
    case Kind::kDescriptorTooLong:
    case Kind::kBitmapTableEntry:
    case Kind::kSnapshotOffset:
    case Kind::kDataFileRaw:
      return false;
    default:
      return !is_copied(kind);
  }
}

// Collects the repairable findings, and passes all findings on.
class Collector final : public CheckObserver {
 public:
  Collector(CheckObserver& next, bool told) : next_(next), told_(told) {}

  void found(const Finding& finding) override {
    if (told_) next_.found(finding);
    // A deep check counts clusters by the lengths of their streams, not of their descriptors.
    descriptors |=
        finding.kind == Kind::kDescriptorTooLong || finding.kind == Kind::kDescriptorTooShort;
    snapshots |= finding.kind == Kind::kSnapshotIncomplete ||
                 finding.kind == Kind::kSnapshotExtraTooLong ||
                 finding.kind == Kind::kSnapshotsTooMany;
    if (finding.kind == Kind::kOverlap && finding.other == Place::kRefcountBlock &&
        finding.place == Place::kData)
      keep(data_on_blocks, finding);
    // The two references are those of the table and of the data.
    if (finding.kind == Kind::kRefcountBlockShared && finding.found == 2)
      keep(shared_blocks, finding);
    if (!finding.repairable) return;
    if (finding.kind == Kind::kLeak) {
      keep(leaks, finding);
    } else if (finding.kind == Kind::kRefcountTooLow) {
      keep(too_low, finding);
    } else if (can_be_written(finding.kind) && finding.entry) {
      keep(is_copied(finding.kind) ? copied : entries, finding);
    }
  }
  // Reports the first check only: each further check would restart at 0.
  void progress(uint64_t done, uint64_t total) override {
    if (told_) next_.progress(done, total);
  }
  bool cancelled() override { return next_.cancelled(); }

  // Returns the index of a refcount block that data in `data_on_blocks` overlaps; nullopt if there
  // is none.
  std::optional<uint64_t> block_to_move() const {
    for (const Finding& block : shared_blocks)
      for (const Finding& data : data_on_blocks)
        if (data.host == block.host) return block.index;
    return std::nullopt;
  }

  std::vector<Finding> leaks, too_low, entries, copied, data_on_blocks, shared_blocks;
  bool descriptors = false;  // a descriptor has a wrong length
  bool snapshots = false;    // the snapshot table has missing or excess data

 private:
  static void keep(std::vector<Finding>& list, const Finding& finding) {
    if (list.size() < kMostAtOnce) list.push_back(finding);
  }

  CheckObserver& next_;
  const bool told_;
};

class Repair {
 public:
  Repair(std::shared_ptr<Storage> storage, const RepairOptions& options, CheckObserver& observer)
      : storage_(std::make_shared<UndoStorage>(std::move(storage), options.undo_path)),
        options_(options),
        observer_(observer) {}

  Result<RepairResult> run() {
    for (unsigned round = 0; round < kMostRounds; ++round) {
      ASSIGN_OR_RETURN(auto checker, Checker::open(*storage_, options_.check));
      Collector collector(observer_, round == 0);
      ASSIGN_OR_RETURN(outcome_.after, checker.run(collector));
      if (round == 0) outcome_.before = outcome_.after;
      outcome_.counts_left = outcome_.entries_left = false;
      ASSIGN_OR_RETURN(const bool repaired, options_.what == RepairOptions::What::kLeaks
                                                ? mend_leaks(checker, collector)
                                                : repair_found(checker, collector));
      if (!repaired) break;
    }
    if (options_.what == RepairOptions::What::kAll) RETURN_IF_ERROR(clear_marks());
    RETURN_IF_ERROR(deallocate_free_space());
    RETURN_IF_ERROR(storage_->finish());
    outcome_.leaks_fixed = fixed(outcome_.before.leaks, outcome_.after.leaks);
    outcome_.corruptions_fixed = fixed(outcome_.before.corruptions, outcome_.after.corruptions);
    outcome_.has_written = storage_->has_written();
    return outcome_;
  }

  bool has_written() const { return storage_->has_written(); }

 private:
  static uint64_t fixed(uint64_t before, uint64_t after) {
    return before > after ? before - after : 0;
  }

  bool hides_references(const CheckSums& sums) const {
    return options_.lossy ? sums.unreadable : sums.references_unknown || data_moved_;
  }

  // Returns false if no further repair of leaks is possible.
  Result<bool> mend_leaks(Checker& checker, const Collector& found) {
    // A second attempt would find the same leaks.
    if (found.leaks.empty() || std::exchange(leaks_done_, true)) return false;
    if (hides_references(outcome_.after) || outcome_.after.refcounts_unusable) {
      outcome_.counts_left = true;
      return false;
    }
    if (!options_.check.deep) {
      RETURN_IF_ERROR(set_counts(checker.header(), {&found.leaks}));
      return true;
    }
    // Descriptors are not changed here, so the clusters that they claim must stay counted.
    CheckOptions by_descriptors = options_.check;
    by_descriptors.deep = false;
    ASSIGN_OR_RETURN(auto shallow, Checker::open(*storage_, by_descriptors));
    Collector collector(observer_, false);
    ASSIGN_OR_RETURN(const auto sums, shallow.run(collector));
    if (hides_references(sums)) {
      outcome_.counts_left = true;
      return false;
    }
    RETURN_IF_ERROR(set_counts(shallow.header(), {&collector.leaks}));
    return true;
  }

  // Repairs one kind of damage.  Returns false if no further repair is possible.
  Result<bool> repair_found(Checker& checker, const Collector& found) {
    const Header& header = checker.header();
    if (!found.entries.empty() && entry_rounds_++ < kMostRounds / 4) {
      ASSIGN_OR_RETURN(const bool any, write_entries(checker, found.entries));
      if (any) return true;
    }
    // The data's entry may be the wrong one: then its cluster looks like a leak from now on.
    const auto block = found.block_to_move();
    if (block && !options_.lossy && moved_blocks_++ < kMostRounds / 4) {
      RETURN_IF_ERROR(clear_unknown_autoclear(header));
      ASSIGN_OR_RETURN(const bool moved, move_refcount_block(*storage_, header, *block));
      data_moved_ |= moved;
      if (moved) return true;
    }
    const bool all_known = !hides_references(outcome_.after) && !found.descriptors;
    if (outcome_.after.needs_rebuild && all_known) {
      if (std::exchange(rebuilt_, true)) return false;
      RETURN_IF_ERROR(clear_unknown_autoclear(header));
      RETURN_IF_ERROR(
          rebuild_refcounts(*storage_, checker, outcome_.after.end_of_outside, observer_));
      return true;
    }
    if (!all_known && !found.leaks.empty()) outcome_.counts_left = true;
    if (outcome_.after.refcounts_unusable) {
      outcome_.counts_left = true;
      return false;
    }
    std::vector<Finding> too_low = found.too_low;
    if (!all_known) RETURN_IF_ERROR(drop_those_without_block(header, too_low));
    const std::vector<Finding> leaks = all_known ? found.leaks : std::vector<Finding>();
    if ((!leaks.empty() || !too_low.empty()) && count_rounds_++ < kMostRounds / 4) {
      RETURN_IF_ERROR(set_counts(header, {&too_low, &leaks}));
      return true;
    }
    std::vector<Finding> copied = found.copied;
    if (!all_known) std::erase_if(copied, [](const Finding& it) { return it.expected > it.found; });
    if (!copied.empty() && copied_rounds_++ < kMostRounds / 4) {
      ASSIGN_OR_RETURN(const bool any, write_entries(checker, copied));
      if (any) return true;
    }
    // The place of the new table is certainly free only if no refcount is too low.
    if (!found.snapshots || !too_low.empty() || outcome_.after.needs_rebuild ||
        std::exchange(snapshots_done_, true))
      return false;
    RETURN_IF_ERROR(clear_unknown_autoclear(header));
    return repair_snapshot_table(storage_, header);
  }

  // Keeps only findings whose entry is in a table that does not share its cluster.
  Result<void> drop_shared(Checker& checker, std::vector<Finding>& findings) {
    std::vector<char> alone(findings.size());
    const Geometry geometry = checker.header().geometry();
    const Checker::Visit look = [&](const ReferenceCounts& counts) -> Result<void> {
      for (size_t i = 0; i < findings.size(); ++i) {
        const HostCluster cluster = geometry.host_cluster_of(*findings[i].entry);
        if (cluster >= counts.begin() && cluster < counts.end())
          alone[i] = counts.get(cluster) == findings[i].table_references ? 1 : 0;
      }
      return {};
    };
    RETURN_IF_ERROR(checker.count(true, observer_, look));
    size_t kept = 0;
    for (size_t i = 0; i < findings.size(); ++i)
      if (alone[i] != 0) findings[kept++] = findings[i];
    if (kept < findings.size()) outcome_.entries_left = true;
    findings.resize(kept, Finding{});
    return {};
  }

  // Of several findings about one entry, writes the first; the next round finds the others.
  // Returns false if there was none to write.
  Result<bool> write_entries(Checker& checker, std::vector<Finding> findings) {
    RETURN_IF_ERROR(drop_shared(checker, findings));
    bool any = false;
    for (const Finding& it : findings) {
      std::array<std::byte, 8> bytes{};
      RETURN_IF_ERROR(read_fully(*storage_, *it.entry, bytes));
      if (load_be64(bytes.data()) != it.found) continue;
      if (!any) RETURN_IF_ERROR(clear_unknown_autoclear(checker.header()));
      if (changes_content(it.kind) && !std::exchange(bitmaps_marked_, true))
        RETURN_IF_ERROR(mark_bitmaps(checker.header()));
      store_be64(bytes.data(), it.expected);
      RETURN_IF_ERROR(storage_->write(*it.entry, bytes));
      any = true;
    }
    RETURN_IF_ERROR(storage_->flush());
    return any;
  }

  // Drops findings about clusters without a block. A new block would go into a cluster that may be
  // in use despite its refcount.
  Result<void> drop_those_without_block(const Header& header, std::vector<Finding>& findings) {
    const Geometry geometry = header.geometry();
    const uint64_t per_block = refcounts_per_block(header.cluster_bits, header.refcount_order);
    const uint64_t entries = (uint64_t{header.refcount_table_clusters} << header.cluster_bits) / 8;
    std::vector<Finding> kept;
    for (const Finding& it : findings) {
      const uint64_t first = geometry.host_cluster_of(it.host).value() / per_block;
      const uint64_t last = (geometry.host_cluster_of(it.host).value() + it.times - 1) / per_block;
      bool there = last < entries;
      for (uint64_t i = first; there && i <= last; ++i) {
        std::array<std::byte, 8> word{};
        RETURN_IF_ERROR(read_fully(*storage_, header.refcount_table + i * 8, word));
        there = load_be64(word.data()) != 0;
      }
      if (there) kept.push_back(it);
    }
    if (kept.size() < findings.size()) outcome_.counts_left = true;
    findings = std::move(kept);
    return {};
  }

  // A writer must clear the autoclear bits that it does not know, since their data may become stale
  // (qcow2 specification, "autoclear_features").
  Result<void> clear_unknown_autoclear(const Header& header) {
    const uint64_t kept =
        header.autoclear_features & (autoclear::kBitmaps | autoclear::kDataFileRaw);
    if (header.version < 3 || kept == header.autoclear_features) return {};
    std::array<std::byte, 8> field{};
    store_be64(field.data(), kept);
    RETURN_IF_ERROR(storage_->write(HostOffset(header_field::kAutoclear), field));
    return storage_->flush();
  }

  // Bitmaps that record changes are no longer valid once the content changes: an incremental backup
  // would lack what the repair has changed.
  Result<void> mark_bitmaps(const Header& header) {
    ASSIGN_OR_RETURN(const auto directory, parse_bitmap_directory(*storage_, header));
    return mark_bitmaps_in_use(*storage_, directory);
  }

  Result<void> set_counts(const Header& header,
                          std::initializer_list<const std::vector<Finding>*> lists) {
    RETURN_IF_ERROR(clear_unknown_autoclear(header));
    ASSIGN_OR_RETURN(const auto refcounts, Refcounts::load(storage_, header));
    const Geometry geometry = header.geometry();
    for (const auto* const list : lists) {
      for (const Finding& it : *list) {
        const HostCluster first = geometry.host_cluster_of(it.host);
        for (uint64_t i = 0; i < it.times; ++i) {
          RETURN_IF_ERROR(refcounts->assign(first + i, it.expected));
          if (refcounts->changes_are_due()) RETURN_IF_ERROR(write_refcounts(*storage_, *refcounts));
        }
      }
      RETURN_IF_ERROR(write_refcounts(*storage_, *refcounts));
    }
    return {};
  }

  // Deallocates free clusters, if the counts are correct and all references known.
  Result<void> deallocate_free_space() {
    if (!options_.deallocate) return {};
    CheckOptions options = options_.check;
    options.deep = false;
    ASSIGN_OR_RETURN(auto checker, Checker::open(*storage_, options));
    Collector collector(observer_, false);
    // Clusters that a descriptor claims are not free.  This checker must find all references
    // itself: a table that was readable before and no longer is ends the repair.
    ASSIGN_OR_RETURN(const CheckSums sums, checker.run(collector));
    if (sums.corruptions + sums.leaks + sums.check_errors > 0 || hides_references(sums)) return {};
    ASSIGN_OR_RETURN(const Deallocated given,
                     deallocate_free_clusters(*storage_, checker, observer_));
    outcome_.deallocated = given.bytes;
    outcome_.undo_full = given.undo_full;
    return {};
  }

  // Clears the dirty and corrupt marks once no damage is left.
  Result<void> clear_marks() {
    if (outcome_.after.corruptions + outcome_.after.check_errors > 0) return {};
    ASSIGN_OR_RETURN(const Header header, Header::read(*storage_, Header::Purpose::kCheck));
    const uint64_t marks = incompatible::kDirty | incompatible::kCorrupt;
    if (header.version < 3 || (header.incompatible_features & marks) == 0) return {};
    std::array<std::byte, 8> field{};
    store_be64(field.data(), header.incompatible_features & ~marks);
    RETURN_IF_ERROR(storage_->write(HostOffset(header_field::kIncompatible), field));
    return storage_->flush();
  }

  const std::shared_ptr<UndoStorage> storage_;
  const RepairOptions& options_;
  CheckObserver& observer_;
  RepairResult outcome_;
  bool leaks_done_ = false;
  bool rebuilt_ = false;
  bool snapshots_done_ = false;
  bool data_moved_ = false;  // data left a refcount block; the evidence of the overlap is gone
  bool bitmaps_marked_ = false;
  unsigned moved_blocks_ = 0;
  unsigned entry_rounds_ = 0;
  unsigned count_rounds_ = 0;
  unsigned copied_rounds_ = 0;
};

}  // namespace

Result<RepairResult> repair(std::shared_ptr<Storage> storage, const RepairOptions& options,
                            CheckObserver& observer) {
  Repair repair(std::move(storage), options, observer);
  auto done = repair.run();
  if (!done && repair.has_written())
    return fail(std::move(done).error().with_context(
        options.undo_path.empty()
            ? std::string("partly repaired")
            : fmt::format("partly repaired (--apply-undo {} undoes that)", options.undo_path)));
  return done;
}

}  // namespace vc::qcow2
