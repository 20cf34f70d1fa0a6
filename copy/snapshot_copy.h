// Copies the internal snapshots of a source, after its active disk.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/cancel.h"
#include "base/progress.h"
#include "base/result.h"
#include "base/stop.h"
#include "copy/copy_options.h"
#include "copy/copy_plan.h"
#include "copy/copy_source.h"
#include "copy/part_progress.h"
#include "copy/sink/digests.h"
#include "copy/sink/qcow2_sink.h"
#include "copy/states/carried_snapshots.h"
#include "copy/verify.h"

namespace vc::copy {

// Returns the width of refcounts (log2 of bits) for a disk and its snapshots, which may all share a
// cluster: at least `order`. Counts one more reference, which is needed while a snapshot is
// applied.
unsigned refcount_order_for(size_t snapshots, unsigned order);

class SnapshotCopy {
 public:
  // Returns nullptr if the copy carries no snapshots. Raises the refcount width of `plan` if it is
  // too small, and makes the source keep unused space that only parts of shared clusters have.
  // `options`, `source` and `plan` must outlive the object.
  static Result<std::unique_ptr<SnapshotCopy>> open(const CopyOptions& options, CopySource& source,
                                                    CopyPlan& plan);

  size_t count() const { return carried_.all().size(); }
  // Returns the bytes of the active disk, and of all disks and VM states of the snapshots.
  uint64_t total() const;
  // Returns the clusters that only snapshots have. Valid after run().
  uint64_t clusters() const { return clusters_; }

  // Prepares the sink. Must precede the copy of the active disk.
  Result<void> begin(Qcow2Sink& sink);
  // Takes over a source that has replaced the first one.
  Result<void> take_late_source();
  // Copies the snapshots to the sink, which holds the active disk. `limit`: nullptr for none.
  Result<void> run(Qcow2Sink& sink, RateLimit* limit, PartProgress& progress, Stop& stop);

  // Compares the snapshots of `copy`, an image that is newly opened, with their sources. Needs
  // CopyOptions::verify. Adds to `summary`.
  Result<void> verify(const qcow2::Chain& copy, PartProgress& progress, const Cancel& cancel,
                      VerifySummary& summary);

  // Returns the bytes that the snapshots add to a copy, if they share nothing.
  uint64_t largest_size() const;
  // Returns the bytes that they add at most, without zeros and compression.
  Result<uint64_t> most_bytes(const Stop& stop);
  // Returns an estimate of these bytes, from samples.
  Result<uint64_t> estimated_bytes(const Stop& stop);
  // Returns these bytes at most, if plain data is cloned. The plan has clones.
  Result<uint64_t> bytes_with_clones(const Stop& stop);
  // Calls `visit(disk, metadata)` for the clusters that each snapshot stores, and for each VM
  // state. `metadata`: bytes of tables and refcounts.
  using Visit = std::function<Result<void>(Source& disk, uint64_t size, uint64_t metadata)>;
  Result<void> for_each_part(const Visit& visit, const Stop& stop);

 private:
  SnapshotCopy(const CopyOptions& options, CopySource& source, CopyPlan& plan,
               CarriedSnapshots carried)
      : options_(options), source_(source), plan_(plan), carried_(std::move(carried)) {}

  Result<void> open_maps();
  Result<StateMap::Active> active() const;
  Result<void> keep_shared_space();
  Result<std::unique_ptr<LocalSource>> open_disk(const CarriedSnapshots& of, size_t number) const;
  Result<void> run_part(Source& part, Digests* digests, Qcow2Sink& sink, RateLimit* limit,
                        PartProgress& progress, Stop& stop);
  Digests* new_digests(uint64_t size);
  Result<void> verify_snapshot(const CarriedSnapshots& copy, StateMap& entries, size_t number,
                               PartProgress& progress, const Cancel& cancel,
                               VerifySummary& summary);
  Result<void> verify_entries(StateMap& copy, size_t state, const Cancel& cancel);
  Result<uint64_t> own_tables(size_t state, const Stop& stop);

  const CopyOptions& options_;
  CopySource& source_;
  CopyPlan& plan_;
  CarriedSnapshots carried_;
  std::unique_ptr<StateMap> shared_;  // for the builder, under the lock of the placer
  std::unique_ptr<StateMap> own_;     // for the sources, under the lock of their feed
  // With CopyOptions::verify: of the clusters that each snapshot stores, and of its VM state.
  std::vector<std::unique_ptr<Digests>> digests_;
  uint64_t clusters_ = 0;
};

}  // namespace vc::copy
