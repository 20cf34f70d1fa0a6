// The internal snapshots of a source that go into its copy.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/result.h"
#include "copy/source/local_source.h"
#include "copy/states/snapshot_choice.h"
#include "copy/states/state_map.h"
#include "copy/states/vm_state.h"
#include "qcow2/read/chain.h"

namespace vc::copy {

class CarriedSnapshots {
 public:
  // An error if the source is no image file, or if its image cannot have snapshots.
  static Result<CarriedSnapshots> open(const SnapshotChoice& choice, Source& source);
  // Describes all snapshots of an image.
  static CarriedSnapshots all_of(const qcow2::Chain& chain);

  const std::vector<qcow2::Snapshot>& all() const { return snapshots_; }
  const qcow2::Chain& chain() const { return chain_; }

  // Returns the bytes of all disks and VM states of the snapshots; UINT64_MAX if there are more.
  uint64_t total() const;

  // Returns what the active disk of `source` has that the image with the snapshots does not: the
  // images above it. An error if the source does not read from that image.
  Result<StateMap::Active> active(Source& source) const;
  // Returns a map for clusters of `geometry`.
  Result<std::unique_ptr<StateMap>> map(const qcow2::Geometry& geometry,
                                        StateMap::Active active) const;

  // Return the disk and the VM state of a snapshot.
  Result<std::unique_ptr<LocalSource>> disk(size_t number) const;
  Result<std::unique_ptr<VmStateSource>> vm_state(size_t number) const;

 private:
  CarriedSnapshots(qcow2::Chain chain, std::vector<qcow2::Snapshot> snapshots)
      : chain_(std::move(chain)), snapshots_(std::move(snapshots)) {}

  qcow2::Chain chain_;
  std::vector<qcow2::Snapshot> snapshots_;
};

}  // namespace vc::copy
