// The refcounts of an image that is being written, and thereby its free clusters.
//
// Memory holds the current refcounts. The file is behind until the next commit (refcount_table.h).
// A refcount in the file is never lower than the references in the file: a higher one is a leak,
// but a lower one causes data loss.
//
// Thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "qcow2/format/cluster_run.h"
#include "qcow2/format/geometry.h"
#include "qcow2/format/header.h"
#include "qcow2/refcounts/refcount_table.h"
#include "storage/offset.h"
#include "storage/storage.h"

namespace vc::qcow2 {

class Refcounts {
 public:
  // Clusters that were allocated together.
  struct Run : ClusterRun {
    // Past all previous ends of the file: reads as zeros.
    bool fresh = false;
  };
  using Changes = RefcountChanges;

  static Result<std::unique_ptr<Refcounts>> load(std::shared_ptr<Storage> storage,
                                                 const Header& header);

  // Allocates up to `wanted` (at least 1) consecutive free clusters; sets their refcounts to 1.
  Result<Run> allocate(uint64_t wanted);

  // Allocates exactly `wanted` (at least 1) consecutive free clusters, for a table.
  Result<Run> allocate_table(uint64_t wanted);

  // Removes one reference from each cluster; appends the runs that become free to `freed`.  They
  // may be reallocated at once, so the file and all threads must not refer to them any more.
  Result<void> release(HostCluster first, uint64_t count, std::vector<ClusterRun>& freed);

  Result<uint64_t> get(HostCluster cluster);

  // Sets a refcount to any value. Returns an error if it cannot be stored: the cluster is past all
  // blocks, or `count` exceeds the width.
  Result<void> assign(HostCluster cluster, uint64_t count);
  // Returns whether `times` more references to a cluster can be counted.
  Result<bool> can_add(HostCluster cluster, uint64_t times);
  // Returns the end of the blocks: none of them counts this cluster or a later one.
  uint64_t end_of_blocks();

  // Like allocate(), for the lowest free clusters before `limit`; `count` is 0 if there are none.
  Result<Run> allocate_below(HostCluster limit, uint64_t wanted);

  // Returns the first run of at least `least` free clusters in [from, limit), at most `most` (at
  // least `least`) of them; `count` is 0 if there is none.  Allocates only refcount blocks that are
  // missing there.
  Result<ClusterRun> find_free(HostCluster from, HostCluster limit, uint64_t least, uint64_t most);

  // Returns free clusters past the end of the file, at least 1 and up to `wanted`.  Allocates only
  // the refcount blocks that count them.  No reference may lead past the end: counts that a crash
  // has left there are dropped.
  Result<ClusterRun> find_past_end(uint64_t wanted);

  // Returns the number of used clusters before `end`.
  Result<uint64_t> count_used(HostCluster end);

  // Returns the clusters of the table and its blocks.
  std::vector<ClusterRun> own_clusters();
  // Move the table and the blocks from `limit` and later clusters to free clusters before it, as
  // far as there are any, in the next commit.  Blocks that count only themselves are dropped, and
  // so are blocks of ranges from `limit` on that count nothing.
  // Appends the old places of blocks to `old`: after that commit, remove one reference from each.
  Result<void> move_table_below(HostCluster limit);
  Result<void> move_blocks_below(HostCluster limit, std::vector<ClusterRun>& old);

  // Returns the end of use: all clusters from there on are free, and the file may be truncated
  // there.
  Result<HostCluster> end_of_use();
  // Records that the file was truncated at `end`.
  void truncate(HostCluster end);

  // Returns whether a caller that delays commits should commit now: blocks were added, which a
  // rebuild needs to find, or there are many changes.
  bool changes_are_due();

  // One commit at a time: take_changes(), then committed(), or commit_failed() and take_changes()
  // again.
  Changes take_changes();
  void committed();
  void commit_failed(const Changes& changes);

 private:
  explicit Refcounts(RefcountTable table, std::shared_ptr<Storage> storage,
                     const Geometry& geometry)
      : storage_(std::move(storage)), geometry_(geometry), table_(std::move(table)) {}

  Result<bool> find_hole(uint64_t wanted, uint64_t& hint, uint64_t scan_limit, Run& run)
      REQUIRES(mutex_);
  Result<Run> append(uint64_t wanted) REQUIRES(mutex_);
  Result<Run> append_table(uint64_t wanted) REQUIRES(mutex_);
  Result<Run> take_below(uint64_t limit, uint64_t wanted) REQUIRES(mutex_);
  Result<ClusterRun> find_run(uint64_t from, uint64_t limit, uint64_t least, uint64_t most)
      REQUIRES(mutex_);
  Result<void> count_one(const ClusterRun& run) REQUIRES(mutex_);
  Result<void> release_run(const ClusterRun& run) REQUIRES(mutex_);

  const std::shared_ptr<Storage> storage_;
  const Geometry geometry_;

  Mutex mutex_;
  RefcountTable table_ GUARDED_BY(mutex_);
  // No cluster before hint_ is free. No run of several free clusters was found before run_hint_.
  uint64_t hint_ GUARDED_BY(mutex_) = 0;
  uint64_t run_hint_ GUARDED_BY(mutex_) = 0;
};

}  // namespace vc::qcow2
