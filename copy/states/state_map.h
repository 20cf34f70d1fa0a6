// Which clusters the active disk and the internal snapshots of a source have in common.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "guest/reading/ranges.h"
#include "qcow2/build/sharing.h"
#include "qcow2/format/geometry.h"
#include "qcow2/format/snapshot_table.h"
#include "qcow2/read/cluster_map.h"
#include "qcow2/read/disk.h"
#include "qcow2/read/image.h"
#include "storage/offset.h"

namespace vc::copy {

// Two states are equal in a cluster of the destination if their entries in the image are the same
// for all clusters of the source there, and if their disks end at the same place or after it.
// Clusters of the same content at different places are not found. Reads metadata only, and keeps a
// slice of a table for each state.
//
// Not thread-safe.
class StateMap final : public qcow2::Sharing {
 public:
  // Parts of the active disk that differ from what the image stores.
  struct Active {
    uint64_t size = 0;  // bytes
    // The images above the one with the snapshots, the top first: what they store is not in any
    // snapshot. nullptr: none.
    std::shared_ptr<const qcow2::Disk> above;
    std::shared_ptr<const guest::Ranges> unused;  // read as zeros. nullptr: none
    bool preallocated = false;                    // clusters without data are allocated, too
  };

  // `snapshots`: those of the new image, of which state N is the Nth. `destination`: clusters of
  // the new image.
  static Result<std::unique_ptr<StateMap>> open(const std::shared_ptr<qcow2::Image>& image,
                                                std::span<const qcow2::Snapshot> snapshots,
                                                const qcow2::Geometry& destination, Active active);

  // Replaces what open() was told of the active disk.
  void set_active(Active active);

  Result<size_t> first_with(size_t state, ClusterIndex cluster) override;
  Result<size_t> first_with_table(size_t state, uint64_t l1_index) override;
  Result<uint64_t> states_with(size_t state, ClusterIndex cluster) override;
  Result<uint64_t> states_with_table(size_t state, uint64_t l1_index) override;

  const qcow2::Geometry& geometry() const { return destination_; }
  size_t states() const { return states_.size(); }
  uint64_t size(size_t state) const { return states_[state].size; }
  // Returns whether the image has a table for any part of an L2 table of the destination.
  Result<bool> has_table(size_t state, uint64_t l1_index);
  // Returns whether two states have equal entries in an L2 table.
  Result<bool> is_equal_table(size_t a, size_t b, uint64_t l1_index) {
    return equal(a, b, span_of_table(l1_index));
  }
  // Returns the entry of a cluster, if source and destination have the same clusters.
  Result<qcow2::L2Entry> entry(size_t state, ClusterIndex cluster);

 private:
  using Slice = std::shared_ptr<const qcow2::ClusterMap::Slice>;
  struct Span {
    uint64_t begin;  // guest bytes
    uint64_t end;
  };
  struct State {
    std::shared_ptr<qcow2::ClusterMap> map;
    uint64_t size = 0;  // bytes
    // The L1 entries from `l1_index` to `l1_end` point to `table`: a single entry, or several
    // that are empty.
    uint64_t l1_index = 0;
    uint64_t l1_end = 0;
    HostOffset table;
    // The last slice that was used, unless there are many states.
    HostOffset slice_at;
    Slice slice;
  };

  StateMap(std::string name, const qcow2::Geometry& source, const qcow2::Geometry& destination)
      : name_(std::move(name)), source_(source), destination_(destination) {}

  Span span_of(ClusterIndex cluster) const;
  Span span_of_table(uint64_t l1_index) const;
  Result<HostOffset> table(State& state, uint64_t l1_index);
  Result<Slice> slice(State& state, HostOffset table, uint64_t index);
  Result<bool> equal(size_t a, size_t b, const Span& span);
  Result<bool> equal_entries(State& a, State& b, uint64_t l1_index, uint64_t first, uint64_t end);
  Result<bool> is_own(uint64_t begin, uint64_t end);
  Result<size_t> first_equal(size_t state, const Span& span, size_t from);
  Result<uint64_t> count_equal(size_t state, const Span& span);

  const std::string name_;  // of the image
  const qcow2::Geometry source_;
  const qcow2::Geometry destination_;
  std::vector<State> states_;
  Active active_;
  std::optional<qcow2::Extent> above_;  // the last extent of Active::above
};

}  // namespace vc::copy
