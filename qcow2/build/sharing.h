// What the states of a disk have in common: its active state, and its internal snapshots.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/result.h"
#include "qcow2/format/l2_entry.h"
#include "storage/offset.h"

namespace vc::qcow2 {

// States are numbered: 0 is the active disk, N is the Nth snapshot of the new image. Clusters and
// tables are those of the new image.
//
// Equality is an equivalence relation: of states that are equal in a cluster, the first one stores
// it, and the others refer to that cluster. Tables are equal if the states are equal in all of
// their clusters.
class Sharing {
 public:
  Sharing() = default;
  Sharing(const Sharing&) = delete;
  Sharing& operator=(const Sharing&) = delete;
  virtual ~Sharing() = default;

  // Return the first state that equals `state`: at most `state` itself.
  virtual Result<size_t> first_with(size_t state, ClusterIndex cluster) = 0;
  virtual Result<size_t> first_with_table(size_t state, uint64_t l1_index) = 0;

  // Return the number of states that equal `state`, which is the first one of them; at least 1.
  virtual Result<uint64_t> states_with(size_t state, ClusterIndex cluster) = 0;
  virtual Result<uint64_t> states_with_table(size_t state, uint64_t l1_index) = 0;
};

constexpr bool is_same_entry(const L2Entry& a, const L2Entry& b) {
  return a.word == b.word && a.bitmap == b.bitmap;
}

// Returns the entry of a state that equals an earlier one, whose entry is `entry`. A cluster that
// was allocated without data is not shared: COPIED marks it.
constexpr L2Entry shared_entry(L2Entry entry) {
  const bool is_private = !entry.compressed() && entry.copied();
  return is_private ? L2Entry{} : entry;
}

}  // namespace vc::qcow2
