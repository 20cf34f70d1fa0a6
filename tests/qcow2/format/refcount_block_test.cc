#include "qcow2/format/refcount_block.h"

#include <random>
#include <vector>

#include "tests/catch_text.h"

using namespace qcow2;

TEST_CASE("refcounts of every width do not affect their neighbours", "[refcount]") {
  const unsigned order = GENERATE(range(0u, 7u));
  std::vector<std::byte> block(512);
  const uint64_t counts = refcounts_per_block(9, order);
  std::vector<uint64_t> model(counts);
  std::mt19937_64 random(order);
  for (int i = 0; i < 20000; ++i) {
    const uint64_t index = random() % counts;
    model[index] = random() & max_refcount(order);
    set_refcount(block, index, order, model[index]);
  }
  for (uint64_t i = 0; i < counts; ++i) REQUIRE(get_refcount(block, i, order) == model[i]);
}

TEST_CASE("narrow refcounts begin at the least significant bit", "[refcount]") {
  std::vector<std::byte> block(512);
  set_refcount(block, 0, 0, 1);
  set_refcount(block, 9, 0, 1);
  CHECK(block[0] == std::byte{0x01});
  CHECK(block[1] == std::byte{0x02});
  set_refcount(block, 9, 2, 0xa);  // 4 bits: the upper half of byte 4
  CHECK(block[4] == std::byte{0xa0});
  set_refcount(block, 100, 4, 0x0102);
  CHECK(block[200] == std::byte{0x01});
  CHECK(block[201] == std::byte{0x02});
}
