// Metadata overlap check: prevents guest data from overwriting tables.
//
// In a consistent image no L2 entry points to a table.  In a damaged or malicious one an entry may,
// with the COPIED flag that allows writes in place.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/result.h"
#include "storage/offset.h"

namespace vc::qcow2 {

// Not thread-safe: the disk writer holds the lock of its tables.
class OverlapCheck {
 public:
  enum class Kind : uint8_t {
    kHeader,
    kL1Table,
    kL2Table,
    kRefcountTable,
    kRefcountBlock,
    kSnapshotTable,
    kSnapshotL1Table,
  };

  // Adds `count` clusters from `first`.  Must be called before complete ().
  void add(HostCluster first, uint64_t count, Kind kind);
  // Completes the set.  An error if two structures overlap; the same L2 table may be added twice.
  Result<void> complete();

  // After complete (): adds a table of one cluster; removes `count` clusters from `first`.
  void insert(HostCluster cluster, Kind kind);
  void erase(HostCluster first, uint64_t count);

  // Returns a table in the `count` clusters from `first`, with its cluster; nullopt if there is
  // none.
  struct Hit {
    HostCluster cluster;
    Kind kind;
  };
  std::optional<Hit> find(HostCluster first, uint64_t count) const;

 private:
  // A cluster and its kind, packed into one word: there is one word per L2 table.
  static constexpr unsigned kKindBits = 3;
  static uint64_t word(HostCluster cluster, Kind kind) {
    return cluster.value() << kKindBits | static_cast<uint64_t>(kind);
  }
  static Hit hit(uint64_t word) {
    return {HostCluster(word >> kKindBits), static_cast<Kind>(word & ((1 << kKindBits) - 1))};
  }

  std::vector<uint64_t> words_;  // ascending after complete ()
};

// Returns the name with its article: "an L2 table".
const char* to_string(OverlapCheck::Kind kind);

}  // namespace vc::qcow2
