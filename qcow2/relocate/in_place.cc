#include "qcow2/relocate/in_place.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "qcow2/read/chain.h"
#include "qcow2/relocate/discard_in_memory.h"
#include "qcow2/relocate/image_compress.h"
#include "qcow2/relocate/image_order.h"
#include "qcow2/relocate/image_shrink.h"
#include "qcow2/relocate/image_zeros.h"
#include "qcow2/relocate/leaks.h"
#include "qcow2/relocate/staying_clusters.h"
#include "storage/scratch_storage.h"

namespace vc::qcow2 {

namespace {

Result<void> refuse_marked(const Image& image, const std::string& repair_by) {
  const uint64_t features = image.header().incompatible_features;
  const uint64_t marks = incompatible::kDirty | incompatible::kCorrupt;
  if ((features & marks) == 0) return {};
  return fail(Error::corrupt(fmt::format("{}: is marked {}: repair it first ({})", image.name(),
                                         (features & incompatible::kCorrupt) != 0
                                             ? "corrupt"
                                             : "dirty, so that its refcounts may be "
                                               "wrong",
                                         repair_by)));
}

// Unlike Chain::check_writable(), accepts an image without its backing file, which is never read.
Result<void> check_writable(const std::string& path, const Image& image) {
  if (image.header().crypt_method == CryptMethod::kAes)
    return fail(Error::unsupported(
        path + ": is encrypted with the old AES method, which is insecure: it can only be read"));
  ASSIGN_OR_RETURN(const auto probe, FileStorage::open_writable(path));
  return {};
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

  Result<void> open_only() { return open(); }

  Result<InPlaceSummary> run() {
    const auto start = std::chrono::steady_clock::now();
    RETURN_IF_ERROR(open());
    RETURN_IF_ERROR(check_image());
    if (options_.dry_run) {
      RETURN_IF_ERROR(discard_predicted());
      RETURN_IF_ERROR(predict());
    } else {
      RETURN_IF_ERROR(end(move()));
    }
    summary_.elapsed = std::chrono::steady_clock::now() - start;
    return summary_;
  }

 private:
  const FileStorage& file() const { return *chain_->files().front(); }
  uint64_t bytes(uint64_t clusters) const {
    return clusters << chain_->image()->geometry().cluster_bits();
  }

  // Adds advice to an error.  Without space, the places that were meant for the failed batch are
  // freed, which needs none.
  Result<void> end(Result<void> moved) {
    if (moved) return moved;
    const int error = moved.error().errnum();
    const bool full = error == ENOSPC || error == EFBIG || error == EDQUOT;
    if (full) (void)free_leaks(storage_, progress_, Cancel());
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
    RETURN_IF_ERROR(refuse_marked(image, options_.repair_by));
    storage_ = chain_->storage();
    summary_.virtual_size = image.header().size;
    summary_.snapshots = image.snapshots().size();
    summary_.has_data_file = image.header().has_data_file();
    summary_.is_device = file().is_block_device();
    return {};
  }

  Result<void> check_image() {
    progress_.begin(Phase::kCheck);
    ASSIGN_OR_RETURN(summary_.leaks,
                     count_leaks(*storage_, options_.repair_by, progress_, cancel_));
    if (summary_.leaks == 0) return {};
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

  // In an external data file, discarded clusters keep their places.
  Result<void> discard_predicted() {
    if (options_.discarded.empty() || summary_.has_data_file) return {};
    ASSIGN_OR_RETURN(
        storage_, discard_in_memory(storage_, chain_->image()->encryption(), options_.discarded));
    return {};
  }

  // Frees clusters of zeros; in a dry run, in memory.  Without the key, a dry run cannot read data.
  Result<void> remove_zeros() {
    const auto& key = chain_->image()->encryption();
    const bool reads = !options_.dry_run || !key || !key->is_locked();
    if (!finds_zeros() || !reads || !ImageZeros::can_remove(chain_->image()->header())) return {};
    progress_.begin(Phase::kZeros);
    if (options_.dry_run) {
      ASSIGN_OR_RETURN(storage_, ScratchStorage::create(storage_));
    }
    ImageZeros::Options options;
    options.staying = staying_;
    options.threads = options_.threads;
    options.progress = [this](uint64_t done, uint64_t total) { progress_.update(done, total); };
    ASSIGN_OR_RETURN(const auto zeros, ImageZeros::open(storage_, key, std::move(options)));
    RETURN_IF_ERROR(zeros->run(cancel_));
    summary_.zeros = zeros->freed();
    summary_.stopped = zeros->stopped();
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
  bool finds_zeros() const { return options_.zeros || options_.defragment; }

  // Measures the file, and removes zeros.
  Result<std::unique_ptr<ImageShrink>> begin() {
    ASSIGN_OR_RETURN(auto shrink, open_shrink());
    ASSIGN_OR_RETURN(summary_.before, measure(*shrink));
    RETURN_IF_ERROR(remove_zeros());
    if (summary_.zeros > 0) {
      ASSIGN_OR_RETURN(shrink, open_shrink());
    }
    ASSIGN_OR_RETURN(summary_.to_move, shrink->to_move());
    return shrink;
  }

  Result<void> predict() {
    ASSIGN_OR_RETURN(const auto shrink, begin());
    if (summary_.stopped) return fail(Error::cancelled());
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
    ASSIGN_OR_RETURN(const uint64_t freed, compress->predict(cancel_));
    if (compress->stopped()) return fail(Error::cancelled());
    summary_.compressed = compress->compressed();
    summary_.fixed += compress->fixed();
    ASSIGN_OR_RETURN(const uint64_t compressed, shrink->shortest(freed));
    summary_.after.length = bytes(compressed);
    return {};
  }

  Result<void> move() {
    ASSIGN_OR_RETURN(auto shrink, begin());
    // Compression fills free clusters as well, but needs some at the end, which a device may lack.
    const bool shrinks_first = !options_.compress || orders() || summary_.is_device;
    if (shrinks_first || summary_.stopped) RETURN_IF_ERROR(run(*shrink));
    if (orders() && !summary_.stopped) RETURN_IF_ERROR(put_in_order());
    if (options_.compress && !summary_.stopped) RETURN_IF_ERROR(compress());
    // Truncates what was used meanwhile.
    if (orders() || options_.compress) RETURN_IF_ERROR(shrink_again(shrink));
    // Compressed clusters have taken places between the others, and left some.
    if (orders() && has_compressed_ && !summary_.stopped) {
      RETURN_IF_ERROR(put_in_order());
      RETURN_IF_ERROR(shrink_again(shrink));
    }
    ASSIGN_OR_RETURN(summary_.after, measure(*shrink));
    return {};
  }

  Result<void> shrink_again(std::unique_ptr<ImageShrink>& shrink) {
    ASSIGN_OR_RETURN(shrink, open_shrink());
    return run(*shrink);
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
    if (!has_compressed_) {
      ASSIGN_OR_RETURN(summary_.misplaced, order->misplaced());
      summary_.unordered = order->compressed();
    }
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
    has_compressed_ = compress->moved() > 0;
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
  bool has_compressed_ = false;  // clusters have moved for that
};

}  // namespace

Result<void> require_compactable(const std::string& path, const InPlaceOptions& options) {
  InPlaceOptions reading = options;
  reading.dry_run = true;
  class Silent final : public Progress {
    void update(uint64_t /*done*/, uint64_t /*total*/) override {}
  } silent;
  const Cancel never;
  return Compaction(path, reading, silent, never).open_only();
}

Result<InPlaceSummary> compact_in_place(const std::string& path, const InPlaceOptions& options,
                                        Progress& progress, const Cancel& cancel) {
  return Compaction(path, options, progress, cancel).run();
}

}  // namespace vc::qcow2
