// Moves of clusters within a file, which go to the disk together.
//
//     bytes at the new places, their refcounts | pointers | lower refcounts, with the next commit
//
// with a flush at each bar.  So at each moment, every pointer in the file leads to a place that is
// counted and has the bytes, and all mixtures of old and new pointers read the same: a crash leaks
// clusters, and has no other effect.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "qcow2/format/cluster_run.h"
#include "qcow2/format/geometry.h"
#include "qcow2/refcounts/refcounts.h"
#include "storage/offset.h"
#include "storage/storage.h"

namespace vc::qcow2 {

// Not thread-safe.
class ClusterMoves {
 public:
  // `data` is `storage`, or encrypts and decrypts the data of guests in it.  `refcounts` must
  // outlive the object.
  ClusterMoves(std::shared_ptr<Storage> storage, std::shared_ptr<Storage> data,
               const Geometry& geometry, Refcounts& refcounts)
      : storage_(std::move(storage)),
        data_(std::move(data)),
        geometry_(geometry),
        refcounts_(refcounts) {}

  // Returns an error unless `times`, the references that are known, are all that `cluster` has.
  Result<void> require_all_known(HostCluster cluster, uint64_t times) const;

  enum class Content { kTables, kGuestData };
  // Adds the move of whole clusters with `times` references each to free clusters.  Sets the
  // refcounts of these in memory.
  Result<void> move(ClusterRun from, HostCluster to, uint64_t times, Content content);

  // Adds a copy of whole sectors, for a compressed cluster, and references to the clusters of its
  // new and its old place.
  void copy_sectors(HostOffset from, HostOffset to, uint64_t length);
  Result<void> add_references(HostOffset at, uint64_t length, uint64_t times);
  void drop_references(HostOffset at, uint64_t length, uint64_t times);

  // Adds new bytes, of a compressed cluster, at a free place.
  void write(HostOffset to, std::span<const std::byte> bytes);

  // Adds the change of the 8-byte word at `at`.
  void point(HostOffset at, uint64_t before, uint64_t after) {
    words_.push_back({at, before, after});
  }

  // Writes everything that was added, in the order above, and deallocates the clusters that become
  // free.  If a word is not as it was, another program has written to the file: an error.
  Result<void> commit();

  bool empty() const { return copies_.empty() && fresh_.empty() && words_.empty(); }
  // Returns the bytes copied or written since the start.
  uint64_t moved() const { return moved_; }

 private:
  struct Copy {
    HostOffset from;
    HostOffset to;
    uint64_t length;  // bytes
    bool sectors;     // of compressed clusters
    Content content;
  };
  struct Fresh {
    HostOffset at;
    std::vector<std::byte> bytes;
  };
  struct Word {
    HostOffset at;
    uint64_t before;
    uint64_t after;
  };
  struct Drop {
    HostCluster cluster;
    uint64_t times;
  };

  void add(const Copy& copy);
  Result<void> write_copies();
  Result<void> copy_some_sectors(const Copy& copy);
  Result<void> write_words();
  Result<void> free_old();

  const std::shared_ptr<Storage> storage_;
  const std::shared_ptr<Storage> data_;
  const Geometry geometry_;
  Refcounts& refcounts_;
  std::vector<Copy> copies_;
  std::vector<Fresh> fresh_;
  std::vector<Word> words_;
  std::vector<Drop> drops_;
  uint64_t moved_ = 0;
};

}  // namespace vc::qcow2
