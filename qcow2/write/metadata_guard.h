// Which clusters of a file hold tables, so that no guest's data is written on top of them.
//
// In a sound image no L2 entry points to one.  A damaged, or a hostile, one may, with the COPIED
// flag that lets a writer write in place.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/result.h"
#include "storage/offset.h"

namespace qcow2 {

// Not thread-safe: who writes the disk has it under the lock of its tables.
class MetadataGuard {
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

  // `count` clusters from `first` on.  Before settle ().
  void add(HostCluster first, uint64_t count, Kind kind);
  // All are there.  An error if two things lie in one place; one L2 table may be there twice.
  Result<void> settle();

  // Afterwards: a table of one cluster more; `count` clusters that hold none any more.
  void insert(HostCluster cluster, Kind kind);
  void erase(HostCluster first, uint64_t count);

  // What lies in one of the `count` clusters from `first` on, and where; nothing: no table.
  struct Hit {
    HostCluster cluster;
    Kind kind;
  };
  std::optional<Hit> find(HostCluster first, uint64_t count) const;

 private:
  // A cluster and its kind, in one word: there is one for each L2 table.
  static constexpr unsigned kKindBits = 3;
  static uint64_t word(HostCluster cluster, Kind kind) {
    return cluster.value() << kKindBits | static_cast<uint64_t>(kind);
  }
  static Hit hit(uint64_t word) {
    return {HostCluster(word >> kKindBits), static_cast<Kind>(word & ((1 << kKindBits) - 1))};
  }

  std::vector<uint64_t> words_;  // from settle () on: ascending
};

// With its article: "an L2 table".
const char* to_string(MetadataGuard::Kind kind);

}  // namespace qcow2
