#include "qcow2/build/tail_layout.h"

#include "qcow2/format/geometry.h"
#include "qcow2/format/header.h"
#include "qcow2/format/refcount_block.h"
#include "tests/catch_text.h"

using namespace qcow2;

namespace {

// Returns true if `tables` and `blocks` clusters are enough for the tail, and consistent.
bool is_sound(uint64_t start, uint64_t l1, uint64_t first_range, uint64_t per_block,
              uint64_t cluster_size, uint64_t tables, uint64_t blocks) {
  const uint64_t end = start + l1 + tables + blocks;
  const uint64_t all_blocks = first_range + blocks;
  return all_blocks * per_block >= end && (all_blocks - 1) * per_block < end &&
         all_blocks * 8 <= tables * cluster_size;
}

}  // namespace

TEST_CASE("a tail counts itself, and is as short as possible", "[tail]") {
  const uint64_t per_block = GENERATE(64u, 128u, 4096u);
  const uint64_t cluster_size = 512;
  const uint64_t l1 = GENERATE(1u, 2u, 63u, 64u, 65u, 1000u);
  // Tests around the ends of ranges, also where the refcount table needs another cluster.
  for (const uint64_t range : {0u, 1u, 2u, 62u, 63u, 64u, 65u, 127u, 128u, 1000u})
    for (uint64_t start = range * per_block + (range == 0); start < (range + 1) * per_block;
         start += (start % per_block == 3 && per_block > 70) ? per_block - 70 : 1) {
      const auto tail = TailLayout::plan(start, l1, range, per_block, cluster_size);
      const uint64_t blocks = tail.end - tail.blocks;
      CAPTURE(start, range, per_block, l1, tail.table_clusters(), blocks);
      REQUIRE(tail.l1 == start);
      REQUIRE(tail.table == start + l1);
      REQUIRE(is_sound(start, l1, range, per_block, cluster_size, tail.table_clusters(), blocks));
      for (uint64_t tables = 1; tables <= tail.table_clusters(); ++tables)
        for (uint64_t fewer = 1; fewer <= blocks; ++fewer)
          if (tables + fewer < tail.table_clusters() + blocks)
            REQUIRE_FALSE(is_sound(start, l1, range, per_block, cluster_size, tables, fewer));
    }
}

TEST_CASE("the last start leaves a refcount table that QEMU accepts", "[tail]") {
  const unsigned cluster_bits = GENERATE(range(9u, 22u));
  const unsigned order = GENERATE(range(0u, 7u));
  const uint64_t cluster_size = uint64_t{1} << cluster_bits;
  const uint64_t per_block = refcounts_per_block(cluster_bits, order);
  const uint64_t l1 = GENERATE_COPY(uint64_t{1}, Limits::kL1Bytes / cluster_size);
  const uint64_t start = TailLayout::last_start(l1, per_block, cluster_size);
  CAPTURE(cluster_bits, order, l1, start);
  // The block of the previous range may be missing if its place is the next cluster.
  for (const uint64_t range : {start / per_block, (start - 1) / per_block}) {
    const auto tail = TailLayout::plan(start, l1, range, per_block, cluster_size);
    CHECK(tail.table_clusters() * cluster_size <= Limits::kRefcountTableBytes);
    CHECK(tail.end <= (uint64_t{1} << 56) / cluster_size);
    // Wastes only a few clusters, and a table that offsets keep short.
    const uint64_t most =
        std::min(Limits::kRefcountTableBytes / 8 * per_block, (uint64_t{1} << 56) / cluster_size);
    CHECK(tail.end + Limits::kRefcountTableBytes / cluster_size + 8 >= most);
  }
}
