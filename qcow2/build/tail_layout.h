// Where the builder puts what ends a fresh image: the L1 table, the refcount table, and the
// refcount blocks that have no place in their range any more.
#pragma once

#include <cstdint>

namespace qcow2 {

// All numbers are clusters of the file.
struct TailLayout {
  uint64_t l1;  // the first cluster of each
  uint64_t table;
  uint64_t blocks;
  uint64_t end;  // behind the last block: the length of the file

  uint64_t table_clusters() const { return blocks - table; }

  // The shortest tail from `start`, the first free cluster, on, so that the blocks count every
  // cluster below `end` and the table has an entry for each block.  `first_range`: of the first
  // block that is to be written, the one that counts `start` or the cluster before it.
  static TailLayout plan(uint64_t start, uint64_t l1_clusters, uint64_t first_range,
                         uint64_t per_block, uint64_t cluster_size);

  // A tail that starts no later has a refcount table that QEMU accepts (Limits), and host offsets
  // that an L2 entry can say.
  static uint64_t last_start(uint64_t l1_clusters, uint64_t per_block, uint64_t cluster_size);
};

}  // namespace qcow2
