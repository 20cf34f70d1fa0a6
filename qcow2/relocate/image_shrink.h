// Makes the file of an image as short as its content, without a second copy of any more than a
// batch of clusters.
//
// The clusters at the end move into free clusters before:
//
//     before   | A |   | B |   | C | D |      used: 4, length: 6
//     after    | A | C | B | D |              truncated
//
// Everything moves: data of the disk and of its snapshots, shared or not, compressed clusters, VM
// states, tables, bitmaps, refcounts; not a LUKS header.  Content, flags, and the order of the rest
// stay.  Structures move level by level (References::Level), each level after those that point to
// it, so that no move changes a word inside of a table that moves along.  Each level is one walk,
// or one for each window of pointers.  Clusters at the very end move first, so that an interrupted
// run keeps what it has gained.
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
#include "qcow2/relocate/stream_placer.h"
#include "storage/storage.h"

namespace vc::qcow2 {

// Not thread-safe.
class ImageShrink {
 public:
  struct Options {
    uint64_t batch_bytes = 16 << 20;  // copied between two flushes: the extra space
    size_t most_pointers = 1 << 20;   // in memory at once, 48 bytes each
    std::shared_ptr<const StayingClusters> staying = {};  // nullptr: none
    // Called with the bytes that have moved, and that may have to.
    std::function<void(uint64_t done, uint64_t total)> progress = {};
  };

  // The image must be consistent, its refcounts on disk, and no other process may use it.  All
  // clusters with leaked counts must be in `options.staying`.  `data_file` and `encryption` are
  // those of Image::open.
  static Result<std::unique_ptr<ImageShrink>> open(std::shared_ptr<Storage> storage,
                                                   std::shared_ptr<Storage> data_file,
                                                   std::shared_ptr<const Encryption> encryption,
                                                   Options options);

  // Return the clusters of the file up to the last used one, and those that are used.
  Result<uint64_t> length() const;
  Result<uint64_t> used() const;
  // Returns the clusters that the file can have, if `freed` of the used ones become free: as many
  // as are used then, or more, up to the last one that stays where it is.
  Result<uint64_t> shortest(uint64_t freed = 0) const;
  // Returns the bytes that have to move.
  Result<uint64_t> to_move() const;

  // Moves, and truncates the file.  After a cancellation the file is consistent and truncated after
  // the last used cluster; stopped () is true.  After an error, the file has leaks at most.
  Result<void> run(const Cancel& cancel);
  bool stopped() const { return stopped_; }
  uint64_t moved() const { return moves_->moved(); }

 private:
  using Level = References::Level;

  ImageShrink(std::shared_ptr<Storage> storage, std::shared_ptr<Storage> data_file,
              std::shared_ptr<const Encryption> encryption, Options options)
      : storage_(std::move(storage)),
        data_file_(std::move(data_file)),
        encryption_(std::move(encryption)),
        options_(std::move(options)) {}

  Result<void> reload();
  Result<void> check_key() const;
  Result<HostCluster> end_of_staying() const;
  Result<void> run_round(HostCluster target);
  Result<void> move_tables(Level level, HostCluster target);
  Result<void> move_refcount_table(HostCluster target);
  Result<void> move_refcount_blocks(HostCluster target);
  Result<void> move_single(Level level, HostCluster target);
  Result<bool> move_window(const PointerWindow& window, const std::vector<ClusterPointer>& pointers,
                           bool streams);
  Result<bool> move_batch(const PointerWindow& window, std::span<const ClusterPointer> pointers,
                          bool streams);
  Result<bool> move_cluster(HostCluster from, std::span<const ClusterPointer> pointers);
  Result<void> move_stream(const CompressedDescriptor& stream,
                           std::span<const ClusterPointer> pointers);
  Result<void> commit();
  Result<void> truncate();
  bool check_cancelled();

  const std::shared_ptr<Storage> storage_;
  const std::shared_ptr<Storage> data_file_;
  const std::shared_ptr<const Encryption> encryption_;
  const Options options_;
  const Cancel* cancel_ = nullptr;
  std::unique_ptr<Refcounts> refcounts_;
  std::shared_ptr<Image> image_;  // for the current header
  std::unique_ptr<ClusterMoves> moves_;
  // Of the level that moves.
  std::optional<StreamPlacer> streams_;
  ClusterMoves::Content content_ = ClusterMoves::Content::kTables;
  HostCluster target_;       // new end of the file
  HostCluster search_from_;  // no cluster before it is free
  uint64_t unplaced_ = 0;    // clusters of tables that found no free run
  uint64_t total_ = 0;       // bytes to move
  bool stopped_ = false;
};

}  // namespace vc::qcow2
