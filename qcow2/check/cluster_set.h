// A set of clusters of a file, one bit per cluster.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

#include "storage/offset.h"

namespace vc::qcow2 {

class ClusterSet {
 public:
  // 128 MiB of bits: a file of 64 TiB with 64 KiB clusters.
  static constexpr uint64_t kMostClusters = uint64_t{1} << 30;

  // Creates an empty set for a file of `clusters` clusters, at most kMostClusters.
  explicit ClusterSet(uint64_t clusters) : clusters_(clusters), words_((clusters + 63) / 64) {}

  uint64_t clusters() const { return clusters_; }

  // Returns whether the cluster is in the set.  False for clusters past the end of the file.
  bool contains(HostCluster cluster) const {
    return cluster.value() < clusters_ &&
           (words_[cluster.value() / 64] >> (cluster.value() % 64) & 1) != 0;
  }
  // Adds the cluster.  Returns false if the set contains it already or it is past the end of the
  // file.
  bool add(HostCluster cluster) {
    if (cluster.value() >= clusters_) return false;
    uint64_t& word = words_[cluster.value() / 64];
    const uint64_t bit = uint64_t{1} << (cluster.value() % 64);
    if ((word & bit) != 0) return false;
    word |= bit;
    return true;
  }

  // Calls `visit (first, count)` for each run of clusters in [begin, end) that are not in the set.
  template <typename Visit>
  void visit_gaps(uint64_t begin, uint64_t end, Visit visit) const {
    uint64_t gap = begin;
    uint64_t at = begin;
    while (at < end) {
      const uint64_t word = words_[at / 64] >> (at % 64);
      if (word == 0) {
        at = (at / 64 + 1) * 64;
        continue;
      }
      at += static_cast<uint64_t>(std::countr_zero(word));
      if (at >= end) break;
      if (at > gap) visit(HostCluster(gap), at - gap);
      gap = ++at;
    }
    if (end > gap) visit(HostCluster(gap), end - gap);
  }

 private:
  uint64_t clusters_;
  std::vector<uint64_t> words_;
};

}  // namespace vc::qcow2
