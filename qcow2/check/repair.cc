#include "qcow2/check/repair.h"

#include <array>
#include <utility>
#include <vector>

#include "qcow2/byte_order.h"
#include "qcow2/check/refcount_rebuild.h"
#include "qcow2/check/undo_storage.h"
#include "qcow2/refcount_writer.h"
#include "qcow2/refcounts.h"

namespace qcow2 {

namespace {

using Kind = Finding::Kind;

// What is mended in one round; the next one finds the rest.
constexpr size_t kMostAtOnce = 1 << 18;
// More than any image needs that can be mended at all.
constexpr unsigned kMostRounds = 64;
constexpr HostOffset kIncompatibleField(72);

bool is_copied(Kind kind) {
  return kind == Kind::kL1Copied || kind == Kind::kL2Copied;
}

// Those that are mended by writing `expected` to `entry`.
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
      return true;
    default:
      return is_copied(kind);
  }
}

// Remembers what can be mended, and passes all on.
class Collector final : public CheckObserver {
 public:
  Collector(CheckObserver& next, bool told) : next_(next), told_(told) {}

  void found(const Finding& finding) override {
    if (told_) next_.found(finding);
    if (!finding.repairable) return;
    if (finding.kind == Kind::kLeak) {
      keep(leaks, finding);
    } else if (finding.kind == Kind::kRefcountTooLow) {
      keep(too_low, finding);
    } else if (can_be_written(finding.kind) && finding.entry) {
      keep(is_copied(finding.kind) ? copied : entries, finding);
    }
  }
  // Of the first check alone: it would begin anew with each.
  void progress(uint64_t done, uint64_t total) override {
    if (told_) next_.progress(done, total);
  }
  bool cancelled() override { return next_.cancelled(); }

  std::vector<Finding> leaks, too_low, entries, copied;

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
      ASSIGN_OR_RETURN(const bool mended, mend(checker, collector));
      if (!mended) break;
    }
    if (options_.what == RepairOptions::What::kAll) RETURN_IF_ERROR(clear_marks());
    outcome_.leaks_fixed = fixed(outcome_.before.leaks, outcome_.after.leaks);
    outcome_.corruptions_fixed = fixed(outcome_.before.corruptions, outcome_.after.corruptions);
    outcome_.has_written = storage_->has_written();
    return outcome_;
  }

 private:
  static uint64_t fixed(uint64_t before, uint64_t after) {
    return before > after ? before - after : 0;
  }

  // One kind of thing.  False: there is nothing left that it can do.
  Result<bool> mend(Checker& checker, const Collector& found) {
    if (options_.what == RepairOptions::What::kLeaks) {
      // A second time they would be the same.
      if (found.leaks.empty() || std::exchange(leaks_done_, true)) return false;
      RETURN_IF_ERROR(set_counts(checker.header(), {&found.leaks}));
      return true;
    }
    if (!found.entries.empty() && entry_rounds_++ < kMostRounds / 4) {
      RETURN_IF_ERROR(write_entries(checker.header(), found.entries));
      return true;
    }
    if (outcome_.after.needs_rebuild) {
      if (std::exchange(rebuilt_, true)) return false;
      RETURN_IF_ERROR(rebuild_refcounts(*storage_, checker, observer_));
      return true;
    }
    if ((!found.leaks.empty() || !found.too_low.empty()) && count_rounds_++ < kMostRounds / 4) {
      RETURN_IF_ERROR(set_counts(checker.header(), {&found.too_low, &found.leaks}));
      return true;
    }
    if (!found.copied.empty() && copied_rounds_++ < kMostRounds / 4) {
      RETURN_IF_ERROR(write_entries(checker.header(), found.copied));
      return true;
    }
    return false;
  }

  // Of several findings about one entry the first: the next round finds the others.
  Result<void> write_entries(const Header& header, const std::vector<Finding>& findings) {
    const uint64_t header_end = header.geometry().cluster_size();
    for (const Finding& it : findings) {
      // A table that lies on the header is no table: what stands there is more important.
      if (it.entry->value() < header_end) continue;
      std::array<std::byte, 8> bytes{};
      RETURN_IF_ERROR(read_fully(*storage_, *it.entry, bytes));
      if (load_be64(bytes.data()) != it.found) continue;
      store_be64(bytes.data(), it.expected);
      RETURN_IF_ERROR(storage_->write(*it.entry, bytes));
    }
    return storage_->flush();
  }

  Result<void> set_counts(const Header& header,
                          std::initializer_list<const std::vector<Finding>*> lists) {
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

  // Nothing is wrong any more: then the image need not say so.
  Result<void> clear_marks() {
    if (outcome_.after.corruptions + outcome_.after.check_errors > 0) return {};
    ASSIGN_OR_RETURN(const Header header, Header::read(*storage_, Header::Purpose::kCheck));
    const uint64_t marks = incompatible::kDirty | incompatible::kCorrupt;
    if (header.version < 3 || (header.incompatible_features & marks) == 0) return {};
    std::array<std::byte, 8> field{};
    store_be64(field.data(), header.incompatible_features & ~marks);
    RETURN_IF_ERROR(storage_->write(kIncompatibleField, field));
    return storage_->flush();
  }

  const std::shared_ptr<UndoStorage> storage_;
  const RepairOptions& options_;
  CheckObserver& observer_;
  RepairResult outcome_;
  bool leaks_done_ = false;
  bool rebuilt_ = false;
  unsigned entry_rounds_ = 0;
  unsigned count_rounds_ = 0;
  unsigned copied_rounds_ = 0;
};

}  // namespace

Result<RepairResult> repair(std::shared_ptr<Storage> storage, const RepairOptions& options,
                            CheckObserver& observer) {
  return Repair(std::move(storage), options, observer).run();
}

}  // namespace qcow2
