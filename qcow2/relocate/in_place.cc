#include "qcow2/relocate/in_place.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "qcow2/check/checker.h"
#include "qcow2/read/chain.h"
#include "qcow2/relocate/image_compress.h"
#include "qcow2/relocate/image_order.h"
#include "qcow2/relocate/image_shrink.h"
#include "qcow2/relocate/staying_clusters.h"
#include "qcow2/repair/repair.h"
#include "storage/scratch_storage.h"

namespace vc::qcow2 {

namespace {

// Counters of the check, in bytes.
constexpr uint64_t kCountMemory = 64 << 20;

// Keeps the first corruption that a check finds.
class Findings final : public CheckObserver {
 public:
  Findings(Progress& progress, const Cancel& cancel, uint64_t cluster_size)
      : progress_(progress), cancel_(cancel), cluster_size_(cluster_size) {}

  void found(const Finding& finding) override {
    const bool harmless = finding.severity == Finding::Severity::kNote ||
                          finding.severity == Finding::Severity::kLeak;
    if (!harmless && first_.empty()) first_ = describe(finding, cluster_size_);
  }
  void progress(uint64_t done, uint64_t total) override { progress_.update(done, total); }
  bool cancelled() override { return cancel_.requested(); }
  const std::string& first() const { return first_; }

 private:
  Progress& progress_;
  const Cancel& cancel_;
  const uint64_t cluster_size_;
  std::string first_;
};

Result<void> refuse_marked(const Image& image) {
  const uint64_t features = image.header().incompatible_features;
  const uint64_t marks = incompatible::kDirty | incompatible::kCorrupt;
  if ((features & marks) == 0) return {};
  return fail(Error::corrupt(
      fmt::format("{}: is marked {}: repair it first (virt-compact check -r all)", image.name(),
                  (features & incompatible::kCorrupt) != 0 ? "corrupt"
                                                           : "dirty, so that its refcounts may be "
                                                             "wrong")));
}

// Unlike Chain::check_writable(), accepts an image without its backing file, which is never read.
Result<void> check_writable(const std::string& path, const Image& image) {
  if (image.header().crypt_method == CryptMethod::kAes)
    return fail(Error::unsupported(
        path + ": is encrypted with the old AES method, which is insecure: it can only be read"));
  ASSIGN_OR_RETURN(const auto probe, FileStorage::open_writable(path));
  return {};
}

// Returns the sums: no damage, except for leaks, and tables of zeros that they may belong to.
Result<CheckSums> check(const Storage& storage, Progress& progress, const Cancel& cancel) {
  CheckOptions options;
  options.count_memory = kCountMemory;
  ASSIGN_OR_RETURN(auto checker, Checker::open(storage, options));
  Findings findings(progress, cancel, checker.header().geometry().cluster_size());
  ASSIGN_OR_RETURN(const CheckSums sums, checker.run(findings));
  const uint64_t wrong = sums.corruptions + sums.check_errors;
  if (wrong == 0 && !sums.references_damaged) return sums;
  return fail(Error::corrupt(fmt::format(
      "{}: the image is damaged in {} place{}{}{}: repair it first (virt-compact check -r all)",
      storage.name(), std::max<uint64_t>(wrong, 1), wrong > 1 ? "s" : "",
      findings.first().empty() ? "" : ", the first of them: ", findings.first())));
}

// Frees the leaks of an image that is consistent otherwise.  An interrupted run may have left a
// cluster that two states shared in two places, each with two counts and one reference: there the
// COPIED flags must follow the lower counts, so that this is a repair of all.  Returns the leaks
// that are left: those that may be references of a table that was lost.
Result<uint64_t> free_leaks(const std::shared_ptr<Storage>& storage, Progress& progress,
                            const Cancel& cancel) {
  RepairOptions options;
  options.what = RepairOptions::What::kAll;
  options.check.count_memory = kCountMemory;
  Findings findings(progress, cancel, 1);
  ASSIGN_OR_RETURN(const RepairResult repaired, repair(storage, options, findings));
  return repaired.after.leaks;
}

Result<FileSize> size_of(const FileStorage& file) {
  FileSize size;
  ASSIGN_OR_RETURN(size.length, file.size());
  ASSIGN_OR_RETURN(size.blocks, file.blocks());
  return size;
}

// The steps for one image.
class Compaction {
 public:
  Compaction(const std::string& path, const InPlaceOptions& options, Progress& progress,
             const Cancel& cancel)
      : path_(path), options_(options), progress_(progress), cancel_(cancel) {}

  Result<InPlaceSummary> run() {
    const auto start = std::chrono::steady_clock::now();
    RETURN_IF_ERROR(open());
    RETURN_IF_ERROR(check_image());
    if (options_.dry_run)
      RETURN_IF_ERROR(foretell());
    else
      RETURN_IF_ERROR(add_advice(move()));
    summary_.elapsed = std::chrono::steady_clock::now() - start;
    return summary_;
  }

 private:
  const FileStorage& file() const { return *chain_->files().front(); }
  uint64_t bytes(uint64_t clusters) const {
    return clusters << chain_->image()->geometry().cluster_bits();
  }

  Result<void> add_advice(Result<void> moved) const {
    if (moved) return moved;
    const int error = moved.error().errnum();
    const bool full = error == ENOSPC || error == EFBIG || error == EDQUOT;
    return with_context(
        std::move(moved),
        path_ + ": incomplete, but its content is unchanged: " +
            (full ? "about 16 MiB of free space are needed at a time: provide them, and " : "") +
            "run the command again to go on");
  }

  Result<void> open() {
    OpenOptions opening;
    opening.writable = !options_.dry_run;
    opening.trust = options_.trust;
    opening.trust.names.backing = NameRule::kLeaveOut;
    // Encrypted data cannot be compressed.
    opening.metadata_only = options_.dry_run || options_.compress;
    ASSIGN_OR_RETURN(chain_, Chain::open(path_, opening));
    if (!chain_->image())
      return fail(Error::invalid(
          path_ + ": is a raw file, which has no clusters to move: virt-compact copy compacts it"));
    const Image& image = *chain_->image();
    if (options_.compress)
      RETURN_IF_ERROR(ImageCompress::check(path_, image.header(), options_.compression));
    if (!options_.dry_run) {
      RETURN_IF_ERROR(check_writable(path_, image));
      RETURN_IF_ERROR(chain_->lock_top(ImageClaim::writing()));
    }
    RETURN_IF_ERROR(refuse_marked(image));
    storage_ = chain_->storage();
    summary_.virtual_size = image.header().size;
    summary_.snapshots = image.snapshots().size();
    summary_.has_data_file = image.header().has_data_file();
    summary_.is_device = file().is_block_device();
    return {};
  }

  Result<void> check_image() {
    progress_.begin(Phase::kCheck);
    ASSIGN_OR_RETURN(const CheckSums sums, check(*storage_, progress_, cancel_));
    summary_.leaks = sums.leaks;
    if (sums.leaks == 0) return {};
    // A dry run frees leaks in a copy of the changes, in memory.
    if (options_.dry_run) {
      ASSIGN_OR_RETURN(storage_, ScratchStorage::create(storage_));
    }
    ASSIGN_OR_RETURN(summary_.leaks_left, free_leaks(storage_, progress_, cancel_));
    summary_.leaks -= std::min(summary_.leaks, summary_.leaks_left);
    if (summary_.leaks_left == 0) return {};
    ASSIGN_OR_RETURN(StayingClusters staying,
                     StayingClusters::find(*storage_, kCountMemory, progress_, cancel_));
    staying_ = std::make_shared<const StayingClusters>(std::move(staying));
    return {};
  }

  Result<std::unique_ptr<ImageShrink>> open_shrink() {
    ImageShrink::Options options;
    options.staying = staying_;
    options.progress = [this](uint64_t done, uint64_t total) { progress_.update(done, total); };
    return ImageShrink::open(storage_, chain_->data_file(), chain_->image()->encryption(),
                             std::move(options));
  }

  Result<std::unique_ptr<ImageOrder>> open_order() {
    ImageOrder::Options options;
    options.staying = staying_;
    options.progress = [this](uint64_t done, uint64_t total) { progress_.update(done, total); };
    return ImageOrder::open(storage_, chain_->image()->encryption(), std::move(options));
  }

  Result<std::unique_ptr<ImageCompress>> open_compress() {
    ImageCompress::Options options;
    options.staying = staying_;
    options.compression = options_.compression;
    options.threads = options_.threads;
    options.progress = [this](uint64_t done, uint64_t total) { progress_.update(done, total); };
    return ImageCompress::open(storage_, std::move(options));
  }

  // Measures the file; a block device up to the end of the image.
  Result<FileSize> measure(const ImageShrink& image) const {
    ASSIGN_OR_RETURN(FileSize size, size_of(file()));
    if (summary_.is_device) {
      ASSIGN_OR_RETURN(const uint64_t clusters, image.length());
      size.length = bytes(clusters);
    }
    return size;
  }

  bool orders() const { return options_.defragment && !summary_.has_data_file; }

  Result<void> foretell() {
    ASSIGN_OR_RETURN(const auto shrink, open_shrink());
    ASSIGN_OR_RETURN(summary_.before, measure(*shrink));
    ASSIGN_OR_RETURN(summary_.to_move, shrink->to_move());
    ASSIGN_OR_RETURN(const uint64_t clusters, shrink->shortest());
    summary_.after.length = bytes(clusters);
    if (orders()) {
      ASSIGN_OR_RETURN(const auto order, open_order());
      ASSIGN_OR_RETURN(summary_.misplaced, order->misplaced());
      summary_.unordered = order->compressed();
    }
    if (!options_.compress) return {};
    progress_.begin(Phase::kMeasure);
    ASSIGN_OR_RETURN(const auto compress, open_compress());
    ASSIGN_OR_RETURN(const uint64_t freed, compress->foresee(cancel_));
    if (compress->stopped()) return fail(Error::cancelled());
    summary_.compressed = compress->compressed();
    summary_.fixed += compress->fixed();
    ASSIGN_OR_RETURN(const uint64_t compressed, shrink->shortest(freed));
    summary_.after.length = bytes(compressed);
    return {};
  }

  Result<void> move() {
    ASSIGN_OR_RETURN(auto shrink, open_shrink());
    ASSIGN_OR_RETURN(summary_.before, measure(*shrink));
    ASSIGN_OR_RETURN(summary_.to_move, shrink->to_move());
    // Compression fills free clusters as well, but needs some at the end, which a device may lack.
    const bool shrinks_first = !options_.compress || orders() || summary_.is_device;
    if (shrinks_first) RETURN_IF_ERROR(run(*shrink));
    if (orders() && !summary_.stopped) RETURN_IF_ERROR(put_in_order());
    if (options_.compress && !summary_.stopped) RETURN_IF_ERROR(compress());
    // Truncates what was used meanwhile.
    if (orders() || options_.compress) {
      ASSIGN_OR_RETURN(shrink, open_shrink());
      RETURN_IF_ERROR(run(*shrink));
    }
    ASSIGN_OR_RETURN(summary_.after, measure(*shrink));
    return {};
  }

  Result<void> run(ImageShrink& shrink) {
    progress_.begin(Phase::kCopy);
    RETURN_IF_ERROR(shrink.run(cancel_));
    summary_.moved += shrink.moved();
    summary_.stopped = summary_.stopped || shrink.stopped();
    return {};
  }

  Result<void> put_in_order() {
    progress_.begin(Phase::kCopy);
    ASSIGN_OR_RETURN(const auto order, open_order());
    ASSIGN_OR_RETURN(summary_.misplaced, order->misplaced());
    summary_.unordered = order->compressed();
    RETURN_IF_ERROR(order->run(cancel_));
    summary_.moved += order->moved();
    summary_.stopped = order->stopped();
    return {};
  }

  Result<void> compress() {
    progress_.begin(Phase::kCopy);
    ASSIGN_OR_RETURN(const auto compress, open_compress());
    RETURN_IF_ERROR(compress->run(cancel_));
    summary_.moved += compress->moved();
    summary_.compressed = compress->compressed();
    summary_.fixed += compress->fixed();
    summary_.stopped = compress->stopped();
    return {};
  }

  const std::string& path_;
  const InPlaceOptions& options_;
  Progress& progress_;
  const Cancel& cancel_;
  std::optional<Chain> chain_;
  std::shared_ptr<Storage> storage_;
  std::shared_ptr<const StayingClusters> staying_;  // nullptr: none
  InPlaceSummary summary_;
};

}  // namespace

Result<InPlaceSummary> compact_in_place(const std::string& path, const InPlaceOptions& options,
                                        Progress& progress, const Cancel& cancel) {
  return Compaction(path, options, progress, cancel).run();
}

}  // namespace vc::qcow2
