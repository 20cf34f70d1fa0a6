// The sizes that follow from cluster_bits and the extended-L2 feature.
//
// A guest offset consists of (qcow2 specification, "Cluster mapping"):
//
//     | L1 index | L2 index: l2_bits | offset in the cluster: cluster_bits |
#pragma once

#include <cstdint>

#include "storage/offset.h"

namespace vc::qcow2 {

class Geometry {
 public:
  static constexpr unsigned kMinClusterBits = 9;
  static constexpr unsigned kMaxClusterBits = 21;
  // With extended L2 entries a subcluster has at least one sector: 32 * 512 bytes.
  static constexpr unsigned kMinClusterBitsExtendedL2 = 14;
  static constexpr unsigned kSubclusters = 32;
  static constexpr uint64_t kSectorSize = 512;

  constexpr Geometry() = default;
  constexpr Geometry(unsigned cluster_bits, bool extended_l2)
      : cluster_bits_(cluster_bits), extended_l2_(extended_l2) {}

  constexpr unsigned cluster_bits() const { return cluster_bits_; }
  constexpr bool extended_l2() const { return extended_l2_; }
  constexpr uint64_t cluster_size() const { return uint64_t{1} << cluster_bits_; }

  // Returns the guest's allocation unit: a subcluster with extended L2 entries, else a cluster.
  constexpr uint64_t subcluster_size() const {
    return extended_l2_ ? cluster_size() / kSubclusters : cluster_size();
  }

  // Return the bytes of one L2 entry, and the entries of one L2 table (which fills one cluster).
  constexpr unsigned l2_entry_size() const { return extended_l2_ ? 16 : 8; }
  constexpr unsigned l2_bits() const { return cluster_bits_ - (extended_l2_ ? 4 : 3); }
  constexpr uint64_t l2_entries() const { return uint64_t{1} << l2_bits(); }

  // Returns the guest bytes that one L2 table (one L1 entry) maps.
  constexpr uint64_t l2_reach() const { return uint64_t{1} << (cluster_bits_ + l2_bits()); }

  constexpr uint64_t offset_in_cluster(uint64_t offset) const {
    return offset & (cluster_size() - 1);
  }
  constexpr ClusterIndex cluster_of(GuestOffset at) const {
    return ClusterIndex(at.value() >> cluster_bits_);
  }
  constexpr GuestOffset start_of(ClusterIndex cluster) const {
    return GuestOffset(cluster.value() << cluster_bits_);
  }
  constexpr HostCluster host_cluster_of(HostOffset at) const {
    return HostCluster(at.value() >> cluster_bits_);
  }
  constexpr HostOffset start_of(HostCluster cluster) const {
    return HostOffset(cluster.value() << cluster_bits_);
  }
  constexpr uint64_t l1_index(ClusterIndex cluster) const { return cluster.value() >> l2_bits(); }
  constexpr uint64_t l2_index(ClusterIndex cluster) const {
    return cluster.value() & (l2_entries() - 1);
  }

  // Return the clusters, and the L1 entries, of a virtual disk of `size` bytes.
  constexpr uint64_t clusters_for(uint64_t size) const {
    return (size >> cluster_bits_) + (offset_in_cluster(size) != 0);
  }
  constexpr uint64_t l1_entries_for(uint64_t size) const {
    const unsigned shift = cluster_bits_ + l2_bits();
    return (size >> shift) + ((size & (l2_reach() - 1)) != 0);
  }

 private:
  unsigned cluster_bits_ = 16;
  bool extended_l2_ = false;
};

}  // namespace vc::qcow2
