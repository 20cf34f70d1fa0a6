// Compresses the data of an image within its file.
//
// Clusters of guests are taken in the order of the file, a batch at a time.  Clusters that get
// smaller become streams without gaps, existing streams are packed with them, and zeros become
// entries without data.  Clusters that do not get smaller move along, so that the space which a
// batch leaves is not in pieces:
//
//     before   | a | b | c |  free  |        a to d: plain, e: compressed
//     batch    |   free    |a'b'e'| c |
//
// The result of a batch goes into the free clusters before it: the old places of earlier batches,
// since they become smaller.  Only that of the first batch goes past the end of the file: the extra
// space.  A batch that would hardly become smaller stays.  The file then has free clusters: see
// ImageShrink.
//
// A cluster that states share is compressed once.  Clusters of VM states are no different for the
// format, nor for QEMU.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/cancel.h"
#include "base/result.h"
#include "qcow2/format/codec.h"
#include "qcow2/format/l2_entry.h"
#include "qcow2/read/image.h"
#include "qcow2/refcounts/refcounts.h"
#include "qcow2/refcounts/references.h"
#include "qcow2/relocate/cluster_moves.h"
#include "qcow2/relocate/pointer_window.h"
#include "qcow2/relocate/recompressor.h"
#include "qcow2/relocate/staying_clusters.h"
#include "qcow2/relocate/stored_cluster.h"
#include "qcow2/relocate/stream_packer.h"
#include "storage/storage.h"

namespace vc::qcow2 {

// Not thread-safe.
class ImageCompress {
 public:
  struct Options {
    Compression compression = {};     // without a type, or with that of the image
    unsigned threads = 0;             // 0: one per processor
    uint64_t batch_bytes = 16 << 20;  // of clusters: the memory, and the extra space
    size_t most_pointers = 1 << 20;   // in memory at once, 48 bytes each
    std::shared_ptr<const StayingClusters> staying = {};  // nullptr: none
    // Called with the bytes of the file that are done, and with all.
    std::function<void(uint64_t done, uint64_t total)> progress = {};
  };

  // Returns an error, with the reason, if the format does not allow compressed clusters in the
  // image, or if it cannot be compressed in place with `how`.
  static Result<void> check(const std::string& name, const Header& header, const Compression& how);

  // The image must be consistent, its refcounts on disk, and no other process may use it; check ()
  // must accept it.
  static Result<std::unique_ptr<ImageCompress>> open(std::shared_ptr<Storage> storage,
                                                     Options options);

  // Returns the clusters that run () would free.  Reads and compresses all data, and writes
  // nothing.
  Result<uint64_t> predict(const Cancel& cancel);

  // Compresses.  After a cancellation or an error, the content is the same, and another run goes
  // on.
  Result<void> run(const Cancel& cancel);
  bool stopped() const { return stopped_; }
  uint64_t moved() const { return moves_->moved(); }
  // Returns the bytes of the plain clusters that were compressed.
  uint64_t compressed() const { return compressed_; }
  // Returns the plain clusters that stay, since not all references to them are known.
  uint64_t fixed() const { return fixed_; }

 private:
  using Fate = StoredCluster::Fate;

  ImageCompress(std::shared_ptr<Storage> storage, std::shared_ptr<Image> image, Options options)
      : storage_(std::move(storage)),
        image_(std::move(image)),
        geometry_(image_->geometry()),
        options_(std::move(options)) {}

  Result<void> start(const Cancel& cancel);
  Result<void> visit_all();
  Result<void> visit_window(const PointerWindow& window, std::span<const ClusterPointer> pointers);
  uint64_t most_times() const;
  Result<bool> can_move(const StoredCluster& cluster);
  uint64_t own_clusters(std::span<const StoredCluster> batch, HostOffset next) const;
  static bool gains(uint64_t now, uint64_t then, bool compresses);
  Result<void> visit_batch(std::span<StoredCluster> batch, HostOffset next);
  Result<bool> plan(std::span<StoredCluster> batch, HostOffset next);
  Result<void> decide(std::span<StoredCluster> batch);
  Result<void> write_batch(std::span<const StoredCluster> batch);
  bool reads_zeros(const StoredCluster& cluster, const ClusterPointer& pointer) const;
  Result<void> write_stream(const StoredCluster& cluster);
  void write_zeros(const StoredCluster& cluster);
  Result<void> move_plain(const StoredCluster& cluster);
  void point(const StoredCluster& cluster, const ClusterPointer& pointer, L2Entry entry);

  const std::shared_ptr<Storage> storage_;
  const std::shared_ptr<Image> image_;
  const Geometry geometry_;
  const Options options_;
  const Cancel* cancel_ = nullptr;
  std::unique_ptr<Refcounts> refcounts_;
  std::unique_ptr<ClusterMoves> moves_;
  std::optional<References> references_;
  std::optional<StreamPacker> packer_;
  std::vector<Recompressor> workers_;  // one per thread
  HostCluster end_;                    // of the file at the start
  HostOffset done_;                    // end of the last cluster that was visited
  bool writes_ = false;
  bool stopped_ = false;
  uint64_t freed_ = 0;       // clusters
  uint64_t compressed_ = 0;  // bytes
  uint64_t fixed_ = 0;       // clusters
};

}  // namespace vc::qcow2
