// Checks one L2 table, entry by entry.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/rounding.h"
#include "qcow2/check/finding.h"
#include "qcow2/check/metadata_map.h"
#include "qcow2/check/recorded_counts.h"
#include "qcow2/format/cluster_run.h"
#include "qcow2/format/header.h"
#include "qcow2/format/l2_entry.h"

namespace vc::qcow2 {

// An L2 table and the L1 entries that point to it.
struct TableReference {
  HostOffset at;
  uint64_t active = 0;                   // entries of the active L1 table
  uint64_t inactive = 0;                 // entries of L1 tables of snapshots
  uint32_t snapshot = Finding::kActive;  // the L1 table of one of these entries
  uint64_t l1_index = 0;                 // and the entry's index there

  uint64_t times() const { return active + inactive; }
};

// A compressed cluster to be decoded.
struct CompressedReference {
  uint64_t word;
  HostOffset entry;  // the offset of the entry
  GuestOffset guest;
  uint32_t table;  // index of the table among those checked together
};

// The contribution of a table's entries to the sums, for one L1 entry.
struct TableSums {
  uint64_t allocated = 0;
  uint64_t fragmented = 0;
  uint64_t compressed = 0;
};

// One read of a guest that reads the disk sequentially.
struct ReadPiece {
  HostOffset at;
  uint64_t length;  // bytes; for a compressed cluster the length in its descriptor
  bool compressed;
};

struct TableResult {
  std::vector<Finding> findings;
  std::vector<ClusterRun> runs;                 // one reference to each cluster
  std::vector<CompressedReference> compressed;  // their references are not in `runs`
  std::vector<CompressedReference> at_end;      // the file may end inside their streams
  TableSums sums;
  std::vector<ReadPiece> reads;  // of the current disk, in guest order
};

class L2Check {
 public:
  // All arguments must outlive the object.
  L2Check(const Header& header, uint64_t file_size, const RecordedCounts& recorded,
          const MetadataMap& metadata)
      : header_(header),
        geometry_(header.geometry()),
        file_size_(file_size),
        recorded_(recorded),
        metadata_(metadata) {}

  // Checks the table `bytes`, whose index among those checked together is `number`.  With
  // `keep_compressed`, lists compressed clusters separately; else counts them by their descriptors.
  void check(const TableReference& table, uint32_t number, std::span<const std::byte> bytes,
             bool keep_compressed, TableResult& result) const;

  // Returns whether so much of a reference is past the end of the file that it does not count: a
  // cluster, measured from the end of the last sector, as qemu-img measures it.
  static bool outside(HostOffset at, uint64_t length, uint64_t file_size, uint64_t cluster_size) {
    const uint64_t end = round_up(file_size, Geometry::kSectorSize);
    return at.value() > INT64_MAX - length ||
           (at.value() + length > end && at.value() + length - end >= cluster_size);
  }

 private:
  class Walk;

  const Header& header_;
  const Geometry geometry_;
  const uint64_t file_size_;
  const RecordedCounts& recorded_;
  const MetadataMap& metadata_;
};

}  // namespace vc::qcow2
