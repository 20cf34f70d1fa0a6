#include "qcow2/check/checker.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "qcow2/check/deep_check.h"
#include "qcow2/check/header_scan.h"
#include "qcow2/check/refcount_check.h"
#include "qcow2/check/reference_walk.h"
#include "qcow2/check/table_walk.h"
#include "qcow2/format/header_fields.h"

namespace vc::qcow2 {

namespace {

using Kind = Finding::Kind;
using Place = Finding::Place;

constexpr unsigned kMostPasses = 64;

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
  explicit Work(CheckedImage opened)
      : image_(std::move(opened)), deep_(image_.storage, image_.header, image_.file_size) {}

  const CheckedImage& image() const { return image_; }

  Result<CheckSums> run(CheckObserver& observer) {
    known_unreadable_ = UINT64_MAX;
    CheckTally tally(image_, observer);
    RETURN_IF_ERROR(traverse(true, tally, [](RefcountCheck& refcounts, ReferenceCounts& counts) {
      return refcounts.compare(counts);
    }));
    tally.report_lost();
    known_unreadable_ = tally.unreadable();
    return tally.sums();
  }

  Result<void> count(bool with_refcounts, CheckObserver& observer, const Visit& visit) {
    SilentObserver silent(observer);
    CheckTally tally(image_, silent);
    return traverse(with_refcounts, tally,
                    [&](RefcountCheck&, ReferenceCounts& counts) { return visit(counts); });
  }

 private:
  // Walks all references, and calls `window (refcounts, counts)` for one window of clusters after
  // the other.
  template <typename Window>
  Result<void> traverse(bool with_refcounts, CheckTally& tally, const Window& window) {
    report_marks(tally);
    const auto found = [&](const Finding& it) { tally.report(it); };
    RETURN_IF_ERROR(scan_header(image_.storage, image_.header, found));
    ASSIGN_OR_RETURN(const auto snapshots,
                     SnapshotScan::read(image_.storage, image_.header, found));
    ASSIGN_OR_RETURN(const auto bitmaps, BitmapScan::read(image_.storage, image_.header, found));
    const bool incomplete = !snapshots.complete || !bitmaps.complete;
    if (incomplete) tally.references_incomplete();
    if (incomplete || !snapshots.all_walkable) tally.sums().references_unknown = true;
    ASSIGN_OR_RETURN(const auto recorded,
                     RecordedCounts::load(image_.storage, image_.header, image_.file_size,
                                          image_.options.threads));
    tally.use(recorded);
    if (!recorded.usable() && with_refcounts) report_unusable_table(tally);
    for (const HostOffset block : recorded.unreadable())
      tally.report_unreadable(Place::kRefcountBlock, block);

    TableWalk tables(image_, recorded, deep_, tally);
    ReferenceWalk references(image_, {snapshots, bitmaps, recorded}, tables, tally);
    RefcountCheck refcounts(image_, recorded, tally);
    const size_t most_pages =
        std::max<size_t>(image_.options.count_memory / ReferenceCounts::kPageClusters, 1);
    HostCluster begin(0);
    while (true) {
      if (tally.sums().passes > kMostPasses) return fail(too_many_passes());
      ReferenceCounts counts(begin, most_pages);
      tally.begin_pass();
      RETURN_IF_ERROR(references.walk(with_refcounts, counts));
      if (with_refcounts) refcounts.refer_blocks(counts);
      RETURN_IF_ERROR(check_unreadable(tally.unreadable()));
      RETURN_IF_ERROR(window(refcounts, counts));
      tally.end_first_pass();
      begin = counts.end();
      if (begin.value() == ReferenceCounts::kNoEnd || begin.value() > image_.clusters) break;
      ++tally.sums().passes;
    }
    tally.sums().order = tables.order();
    tally.sums().image_end_offset = (refcounts.highest() + 1) << image_.geometry.cluster_bits();
    return {};
  }

  // Reports that the image is marked dirty or corrupt.
  void report_marks(CheckTally& tally) const {
    const auto note = [&](Kind kind) {
      Finding it{};
      it.kind = kind;
      it.severity = Finding::Severity::kNote;
      it.place = Place::kHeader;
      it.entry = HostOffset(header_field::kIncompatible);
      it.found = image_.header.incompatible_features;
      it.repairable = true;
      tally.report(it);
    };
    const uint64_t features = image_.header.incompatible_features;
    if ((features & incompatible::kDirty) != 0) note(Kind::kDirty);
    if ((features & incompatible::kCorrupt) != 0) note(Kind::kCorruptBit);
  }

  void report_unusable_table(CheckTally& tally) const {
    Finding it{};
    it.kind = Kind::kRefcountTableUnusable;
    it.place = Place::kRefcountTable;
    it.host = image_.header.refcount_table;
    it.entry = HostOffset(header_field::kRefcountTable);
    it.found = image_.header.refcount_table_clusters;
    it.repairable = true;
    tally.refcounts_unusable();
    tally.report(it);
  }

  Error too_many_passes() const {
    return Error::unsupported(fmt::format(
        "the references of the image are too far apart to be counted in {} passes of {} MiB",
        kMostPasses, image_.options.count_memory >> 20));
  }

  // A table that was readable before must not be omitted from the counts.
  Result<void> check_unreadable(uint64_t tables) {
    if (tables > known_unreadable_)
      return fail(
          Error::system(EIO, fmt::format("{}: {} tables cannot be read that were read before",
                                         image_.storage.name(), tables - known_unreadable_)));
    if (known_unreadable_ == UINT64_MAX) known_unreadable_ = tables;
    return {};
  }

  const CheckedImage image_;
  DeepCheck deep_;
  // Tables that were unreadable in the first pass of the last run.
  uint64_t known_unreadable_ = UINT64_MAX;
};

Checker::Checker(std::unique_ptr<Work> work) : work_(std::move(work)) {}
Checker::Checker(Checker&&) noexcept = default;
Checker& Checker::operator=(Checker&&) noexcept = default;
Checker::~Checker() = default;

Result<Checker> Checker::open(const Storage& storage, const CheckOptions& options) {
  auto image = with_context(CheckedImage::open(storage, options), storage.name());
  if (!image) return fail(std::move(image).error());
  return Checker(std::make_unique<Work>(std::move(*image)));
}

const Header& Checker::header() const {
  return work_->image().header;
}

uint64_t Checker::clusters() const {
  return work_->image().clusters;
}

Result<CheckSums> Checker::run(CheckObserver& observer) {
  return work_->run(observer);
}

Result<void> Checker::count(bool with_refcounts, CheckObserver& observer, const Visit& visit) {
  return work_->count(with_refcounts, observer, visit);
}

}  // namespace vc::qcow2
