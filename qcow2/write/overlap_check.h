// Metadata overlap check: prevents guest data from overwriting tables.
//
// In a consistent image no L2 entry points to a table.  In a damaged or malicious one an entry may,
// with the COPIED flag that allows writes in place.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/result.h"
#include "qcow2/format/structures.h"
#include "storage/offset.h"

namespace vc::qcow2 {

// Not thread-safe: callers hold the lock of the map.
class OverlapCheck {
 public:
  // Adds `count` clusters from `first`.  Must be called before complete ().
  void add(HostCluster first, uint64_t count, Structure structure);
  // Completes the set.  An error if two structures overlap; the same L2 table may be added twice.
  Result<void> complete();

  // After complete () of both: adds the tables of `other`, which are apart from these.
  void merge(const OverlapCheck& other);
  // Returns the number of clusters.
  uint64_t size() const { return words_.size(); }

  // After complete (): adds a table of one cluster; removes `count` clusters from `first`.
  void insert(HostCluster cluster, Structure structure);
  void erase(HostCluster first, uint64_t count);

  // Returns a table in the `count` clusters from `first`, with its cluster; nullopt if there is
  // none.
  struct Hit {
    HostCluster cluster;
    Structure structure;
  };
  std::optional<Hit> find(HostCluster first, uint64_t count) const;

 private:
  // A cluster and its structure, packed into one word: there is one word per L2 table.
  static constexpr unsigned kStructureBits = 4;
  static uint64_t word(HostCluster cluster, Structure structure) {
    return cluster.value() << kStructureBits | static_cast<uint64_t>(structure);
  }
  static Hit hit(uint64_t word) {
    return {HostCluster(word >> kStructureBits),
            static_cast<Structure>(word & ((1 << kStructureBits) - 1))};
  }

  std::vector<uint64_t> words_;  // ascending after complete ()
};

}  // namespace vc::qcow2
