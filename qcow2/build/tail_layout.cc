#include "qcow2/build/tail_layout.h"

#include <algorithm>

#include "base/rounding.h"
#include "qcow2/format/header.h"

namespace vc::qcow2 {

namespace {

// The end of the host offsets that bits 9 to 55 of an entry can store.
constexpr uint64_t kHostOffsetEnd = uint64_t{1} << 56;

}  // namespace

// More blocks may need a longer table, which may need more blocks.  Neither shrinks when the other
// grows, so growing from the minimum until both fit gives the shortest tail.
TailLayout TailLayout::plan(uint64_t start, uint64_t l1_clusters, uint64_t first_range,
                            uint64_t per_block, uint64_t cluster_size) {
  uint64_t table_clusters = 1;
  uint64_t block_clusters = 1;
  while (true) {
    const uint64_t end = start + l1_clusters + table_clusters + block_clusters;
    const uint64_t ranges = divide_up(end, per_block);
    const uint64_t table_needed = divide_up(ranges * 8, cluster_size);
    const uint64_t blocks_needed = ranges - first_range;
    if (table_needed <= table_clusters && blocks_needed <= block_clusters)
      return {start, start + l1_clusters, start + l1_clusters + table_clusters, end};
    table_clusters = std::max(table_clusters, table_needed);
    block_clusters = std::max(block_clusters, blocks_needed);
  }
}

uint64_t TailLayout::last_start(uint64_t l1_clusters, uint64_t per_block, uint64_t cluster_size) {
  const uint64_t last_end =
      std::min(Limits::kRefcountTableBytes / 8 * per_block, kHostOffsetEnd / cluster_size);
  const uint64_t tables = l1_clusters + Limits::kRefcountTableBytes / cluster_size;
  // The blocks also count themselves; the first and the last range may be partial.
  const uint64_t blocks = tables / (per_block - 1) + 4;
  return last_end - tables - blocks;
}

}  // namespace vc::qcow2
