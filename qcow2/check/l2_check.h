// One L2 table, entry by entry.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "qcow2/check/finding.h"
#include "qcow2/check/metadata_map.h"
#include "qcow2/check/recorded_counts.h"
#include "qcow2/format/header.h"
#include "qcow2/format/l2_entry.h"

namespace qcow2 {

// An L2 table, and who points to it.
struct TableReference {
  HostOffset at;
  uint64_t active = 0;                   // entries of the active L1 table
  uint64_t inactive = 0;                 // entries of snapshots' L1 tables
  uint32_t snapshot = Finding::kActive;  // one of them: whose
  uint64_t l1_index = 0;                 // and where there

  uint64_t times() const { return active + inactive; }
};

struct ClusterRun {
  uint64_t first;  // cluster of the file
  uint64_t count;
};

// A compressed cluster, for who wants to decode it.
struct CompressedReference {
  uint64_t word;
  HostOffset entry;  // where it stands
  GuestOffset guest;
  uint32_t table;  // number of the table among those that are checked together
};

// What the entries of a table add to the sums, for one who points to it.
struct TableSums {
  uint64_t allocated = 0;
  uint64_t fragmented = 0;
  uint64_t compressed = 0;
};

// What a guest that reads the disk from its start reads next.
struct ReadPiece {
  HostOffset at;
  uint64_t length;  // bytes; of a compressed cluster as its descriptor says
  bool compressed;
};

struct TableResult {
  std::vector<Finding> findings;
  std::vector<ClusterRun> runs;                 // one reference each
  std::vector<CompressedReference> compressed;  // whose references are not in `runs`
  std::vector<CompressedReference> at_end;      // that the file may end inside of
  TableSums sums;
  std::vector<ReadPiece> reads;  // of the disk as it is now, in the guest's order
};

class L2Check {
 public:
  // All must outlive it.
  L2Check(const Header& header, uint64_t file_size, const RecordedCounts& recorded,
          const MetadataMap& metadata)
      : header_(header),
        geometry_(header.geometry()),
        file_size_(file_size),
        recorded_(recorded),
        metadata_(metadata) {}

  // `bytes` are those of the whole table, which is number `number`.  With `keep_compressed`
  // compressed clusters are told apart, else they are counted by their descriptors.
  void check(const TableReference& table, uint32_t number, std::span<const std::byte> bytes,
             bool keep_compressed, TableResult& result) const;

  // Whether so much of a reference lies behind the end of the file that it does not count.
  static bool outside(HostOffset at, uint64_t length, uint64_t file_size, uint64_t cluster_size) {
    return at.value() > INT64_MAX - length ||
           (at.value() + length > file_size && at.value() + length - file_size >= cluster_size);
  }

 private:
  class Walk;

  const Header& header_;
  const Geometry geometry_;
  const uint64_t file_size_;
  const RecordedCounts& recorded_;
  const MetadataMap& metadata_;
};

}  // namespace qcow2
