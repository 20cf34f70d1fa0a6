// Puts the data of an image into the order of its guests, within its file.
//
// Clusters of guests take the places from the start of the file on, in this order: those of the
// active disk by guest offset, then those that only snapshots have.  Tables and compressed clusters
// stay where they are.  For each batch of places:
//
//     1. what is there and belongs elsewhere moves to free places, or past the end of the file
//     2. what belongs there moves there
//
// So a cluster moves twice at most, and the extra space is one batch.  A window of places is
// planned in memory at a time: one walk over the tables finds what belongs there, and a second one
// all references to these clusters and to those that are there now.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <unordered_map>
#include <vector>

#include "base/cancel.h"
#include "base/result.h"
#include "qcow2/check/cluster_set.h"
#include "qcow2/format/encryption.h"
#include "qcow2/read/image.h"
#include "qcow2/refcounts/refcounts.h"
#include "qcow2/refcounts/references.h"
#include "qcow2/relocate/cluster_moves.h"
#include "qcow2/relocate/staying_clusters.h"
#include "storage/storage.h"

namespace vc::qcow2 {

// Not thread-safe.
class ImageOrder {
 public:
  struct Options {
    uint64_t batch_bytes = 16 << 20;  // copied between two flushes: the extra space
    size_t most_pointers = 1 << 20;   // planned at once, about 150 bytes of memory each
    std::shared_ptr<const StayingClusters> staying = {};  // nullptr: none
    // Called with the bytes that are in place, and with all.
    std::function<void(uint64_t done, uint64_t total)> progress = {};
  };

  // The image must be consistent, its refcounts on disk, and no other process may use it.  All
  // clusters with leaked counts must be in `options.staying`.  The image must
  // hold its own data, and not be locked by encryption.  Returns Error::unsupported if the file has
  // more clusters than a ClusterSet holds.
  static Result<std::unique_ptr<ImageOrder>> open(std::shared_ptr<Storage> storage,
                                                  std::shared_ptr<const Encryption> encryption,
                                                  Options options);

  // Returns the bytes that are not in their places.
  Result<uint64_t> misplaced() const;
  // Returns the compressed clusters, which stay where they are.
  uint64_t compressed() const { return compressed_; }

  // Moves.  The file then has free clusters at its end: see ImageShrink.  After a cancellation or
  // an error, the content is the same, and another run goes on.
  Result<void> run(const Cancel& cancel);
  bool stopped() const { return stopped_; }
  uint64_t moved() const { return moves_->moved(); }

 private:
  // A cluster of the window.
  struct Item {
    HostCluster place;
    std::optional<HostCluster> target;  // nullopt: its place is in a later window
  };
  struct Word {
    uint32_t item;
    HostOffset at;
    uint64_t word;
    uint64_t times;
  };

  ImageOrder(std::shared_ptr<Storage> storage, std::shared_ptr<Image> image, Options options)
      : storage_(std::move(storage)),
        image_(std::move(image)),
        geometry_(image_->geometry()),
        options_(std::move(options)) {}

  Result<void> find_fixed();
  HostCluster skip_fixed(HostCluster place) const;
  Result<bool> plan_window(size_t most);
  Result<void> find_wanted(size_t most);
  Result<void> add_occupants();
  Result<bool> find_words();
  Result<void> move_batch(size_t begin, size_t end);
  Result<void> move(uint32_t item, HostCluster to);
  Result<HostCluster> find_refuge(uint32_t item, size_t batch_end);
  size_t batch_clusters() const;

  const std::shared_ptr<Storage> storage_;
  const std::shared_ptr<Image> image_;
  const Geometry geometry_;
  const Options options_;
  std::unique_ptr<Refcounts> refcounts_;
  std::unique_ptr<ClusterMoves> moves_;
  std::optional<References> references_;
  std::vector<HostOffset> tables_;   // in the order of guests
  std::optional<ClusterSet> fixed_;  // used clusters without plain data, and those that stay
  uint64_t end_ = 0;                 // clusters of the file
  uint64_t compressed_ = 0;          // streams

  size_t table_ = 0;   // all clusters of the tables before it are in place
  HostCluster place_;  // all guest data before it is in place
  // The window: first the clusters that belong there, in order, then others that are there.
  std::vector<Item> items_;
  size_t wanted_ = 0;
  size_t next_table_ = 0;
  HostCluster next_place_;
  std::unordered_map<uint64_t, uint32_t> item_at_;  // by place
  std::vector<Word> words_;                         // by item
  std::set<uint64_t> free_;                         // places
  bool stopped_ = false;
};

}  // namespace vc::qcow2
