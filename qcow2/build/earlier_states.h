// Reads back the tables of the states of a new image that are complete.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "qcow2/format/geometry.h"
#include "qcow2/format/l2_entry.h"
#include "qcow2/read/table_cache.h"
#include "storage/offset.h"
#include "storage/storage.h"

namespace vc::qcow2 {

// Not thread-safe.
class EarlierStates {
 public:
  // `file`: the new image. `active_l1`: the L1 table of state 0, which is not in the file. Both
  // must outlive the object.
  EarlierStates(const Storage& file, const Geometry& geometry,
                std::span<const std::byte> active_l1);

  // Adds the next state.
  void add(HostOffset l1_table, uint64_t l1_entries) { tables_.push_back({l1_table, l1_entries}); }

  // Returns the place of an L2 table; 0: the state has none there.
  Result<HostOffset> table(size_t state, uint64_t l1_index);
  Result<L2Entry> entry(size_t state, ClusterIndex cluster);

 private:
  struct L1Table {
    HostOffset at;
    uint64_t entries;
  };
  using Slice = std::shared_ptr<const TableCache::Slice>;

  // Returns the slice of the file that contains `at`.
  Result<Slice> slice(HostOffset at);

  const Storage& file_;
  const Geometry geometry_;
  const std::span<const std::byte> active_l1_;
  const uint64_t slice_size_;
  std::vector<L1Table> tables_;  // of state 1 and later
  TableCache cache_;
};

}  // namespace vc::qcow2
