// The state of a builder.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/rounding.h"
#include "qcow2/build/builder.h"
#include "qcow2/build/cluster_layout.h"
#include "qcow2/build/earlier_states.h"
#include "qcow2/format/header.h"

namespace vc::qcow2 {

// QEMU requires an L1 table even for an empty disk.
inline uint64_t l1_entries_for(const Geometry& geometry, uint64_t size) {
  return std::max<uint64_t>(geometry.l1_entries_for(size), 1);
}

inline uint64_t l1_clusters(const Geometry& geometry, uint64_t entries) {
  return divide_up(entries * 8, geometry.cluster_size());
}

class Builder::Impl {
 public:
  Impl(Storage& out, const BuildOptions& options, Gaps gaps);

  Result<void> make_header();
  Result<void> write_luks();
  Result<Placement> place_data(ClusterIndex first, uint64_t clusters);
  Result<HostOffset> place_compressed(ClusterIndex cluster, uint64_t length);
  Result<void> place_zero(ClusterIndex first, uint64_t clusters);
  Result<Placement> place_preallocated(ClusterIndex first, uint64_t clusters);
  Result<void> skip_preallocated(ClusterIndex first, uint64_t clusters);
  Result<void> shrink_to(uint64_t size);
  Result<void> carry(Sharing& sharing);
  Result<void> begin_snapshot(const Snapshot& snapshot);
  Result<void> begin_vm_state();
  Result<void> finish();

  const Geometry& geometry() const { return geometry_; }
  const BuildCounts& counts() const { return counts_; }

 private:
  static void clear(AlignedBuffer& buffer) { std::memset(buffer.data(), 0, buffer.size()); }

  void set_luks(HostOffset at);
  Result<void> begin(ClusterIndex first, uint64_t clusters);
  Result<void> check_length(uint64_t clusters = 0) const;
  Result<void> switch_to(uint64_t l1_index);
  Result<void> inherit_to(uint64_t end);
  Result<void> inherit_cluster(ClusterIndex cluster);
  Result<void> end_state();
  Result<void> write_snapshot_table();
  Result<uint64_t> states_with(ClusterIndex cluster);
  AlignedBuffer& current_l1() { return state_ == 0 ? l1_ : snapshot_l1_; }
  bool shares() const { return sharing_ != nullptr && !in_vm_state_; }
  Result<void> write_l2();
  void set_entry(ClusterIndex cluster, uint64_t word, uint64_t bitmap);
  Result<Placement> take_run(ClusterIndex first, uint64_t clusters);
  void set_compressed(ClusterIndex cluster, uint64_t at, uint64_t length);
  Result<Placement> place(ClusterIndex first, uint64_t clusters, uint64_t flags, uint64_t bitmap,
                          bool is_shared);
  Result<void> write_bitmaps();
  Result<void> write_tail();

  Storage& out_;
  const BuildOptions options_;
  const Gaps gaps_;
  const Geometry geometry_;
  uint64_t size_;  // of the virtual disk, bytes
  uint64_t end_;   // of the current state, or of its VM state: a guest cluster
  uint64_t l1_entries_;
  Header header_;

  const uint64_t limit_;

  ClusterLayout clusters_;
  AlignedBuffer l1_;  // as in the file, with space for the LUKS header
  AlignedBuffer l2_;  // the table of l1_index_
  uint64_t l1_index_ = 0;
  bool l2_used_ = false;     // l2_ has an entry
  uint64_t next_guest_ = 0;  // guest clusters before this one must not be placed any more

  // Snapshots.
  size_t state_ = 0;                      // see Sharing
  Sharing* sharing_ = nullptr;            // nullptr: no snapshots
  std::optional<EarlierStates> earlier_;  // set with sharing_
  std::vector<Snapshot> snapshots_;       // of the new image; the last one is state_
  AlignedBuffer snapshot_l1_;             // of the last one
  bool in_vm_state_ = false;
  uint64_t base_ = 0;  // the guest cluster of cluster 0 of the caller

  BuildCounts counts_;
};

}  // namespace vc::qcow2
