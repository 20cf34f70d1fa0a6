// Removes the zeros that an image stores as data.
//
// Clusters of guests are read in the order of the file, a batch at a time.  The entries of those
// that hold zeros become entries without data, and their places become free: see ImageShrink.
// Nothing moves.
//
// A cluster that states share becomes free if all of them read zeros.  Compressed clusters stay: a
// stream of zeros is short.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/cancel.h"
#include "base/result.h"
#include "qcow2/format/encryption.h"
#include "qcow2/read/image.h"
#include "qcow2/refcounts/refcounts.h"
#include "qcow2/refcounts/references.h"
#include "qcow2/relocate/cluster_moves.h"
#include "qcow2/relocate/pointer_window.h"
#include "qcow2/relocate/staying_clusters.h"
#include "qcow2/relocate/stored_cluster.h"
#include "storage/storage.h"

namespace vc::qcow2 {

// Not thread-safe.
class ImageZeros {
 public:
  struct Options {
    unsigned threads = 0;             // 0: one per processor
    uint64_t batch_bytes = 16 << 20;  // of clusters, between two checks of `cancel`
    size_t most_pointers = 1 << 20;   // in memory at once, 48 bytes each
    std::shared_ptr<const StayingClusters> staying = {};  // nullptr: none
    // Called with the bytes of the file that are done, and with all.
    std::function<void(uint64_t done, uint64_t total)> progress = {};
  };

  // Returns whether the format has entries for the zeros of such an image, and whether the image
  // holds its own data.
  static bool can_remove(const Header& header);

  // The image must be consistent, its refcounts on disk, and no other process may use it;
  // can_remove () must accept it, and its encryption must not be locked.
  static Result<std::unique_ptr<ImageZeros>> open(std::shared_ptr<Storage> storage,
                                                  std::shared_ptr<const Encryption> encryption,
                                                  Options options);

  // Reads all plain clusters, and frees those that hold zeros.  After a cancellation or an error,
  // the content is the same, and another run goes on.
  Result<void> run(const Cancel& cancel);
  bool stopped() const { return stopped_; }
  // Returns the bytes of the clusters that became free.
  uint64_t freed() const { return freed_; }

 private:
  // A cluster, and the bitmaps of the extended entries that point to it.
  struct Candidate {
    StoredCluster cluster;
    std::vector<uint64_t> bitmaps = {};
    bool is_zero = false;
  };

  ImageZeros(std::shared_ptr<Storage> storage, std::shared_ptr<Image> image, Options options)
      : storage_(std::move(storage)),
        image_(std::move(image)),
        geometry_(image_->geometry()),
        options_(std::move(options)) {}

  Result<bool> visit_window(const PointerWindow& window, std::span<const ClusterPointer> pointers);
  Result<bool> can_free(const StoredCluster& cluster) const;
  Result<void> visit_batch(std::span<Candidate> batch);
  Result<void> decide(Candidate& candidate, std::span<std::byte> buffer) const;
  Result<uint32_t> read_bitmaps(Candidate& candidate) const;
  bool reads_zeros(std::span<const std::byte> cluster, uint32_t subclusters) const;
  Result<void> remove(const Candidate& candidate);
  Result<void> commit();

  const std::shared_ptr<Storage> storage_;
  const std::shared_ptr<Image> image_;
  const Geometry geometry_;
  const Options options_;
  const Cancel* cancel_ = nullptr;
  std::unique_ptr<Refcounts> refcounts_;
  std::unique_ptr<ClusterMoves> moves_;
  std::optional<References> references_;
  HostCluster end_;       // of the file
  uint64_t pending_ = 0;  // words to be written
  bool has_written_ = false;
  bool stopped_ = false;
  uint64_t freed_ = 0;
};

}  // namespace vc::qcow2
