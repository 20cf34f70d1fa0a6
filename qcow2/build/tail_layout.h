// The positions of the structures at the end of a new image: the L1 table, the refcount table, and
// the refcount blocks that do not fit into their ranges.
#pragma once

#include <cstdint>

namespace vc::qcow2 {

// All numbers are clusters of the file.
struct TailLayout {
  uint64_t l1;  // the first cluster of each
  uint64_t table;
  uint64_t blocks;
  uint64_t end;  // past the last block: the length of the file

  uint64_t table_clusters() const { return blocks - table; }

  // Returns the shortest tail from `start`, the first free cluster: the blocks must count every
  // cluster below `end`, and the table must have an entry for each block.  `first_range` is the
  // range of the first unwritten block, which counts `start` or the cluster before it.
  static TailLayout plan(uint64_t start, uint64_t l1_clusters, uint64_t first_range,
                         uint64_t per_block, uint64_t cluster_size);

  // Returns the last start of a tail with a refcount table that QEMU accepts (Limits) and with host
  // offsets that fit into an L2 entry.
  static uint64_t last_start(uint64_t l1_clusters, uint64_t per_block, uint64_t cluster_size);
};

}  // namespace vc::qcow2
