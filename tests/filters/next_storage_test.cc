// Reads through a layer that records the reads, and checks that nbdkit would accept each of them.
#include "filters/next_storage.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "tests/catch_text.h"
#include "tests/support/random.h"

using namespace vc;

// Stands for nbdkit's list of extents, as far as the filter uses it. In a server, nbdkit provides
// it.
struct nbdkit_extents {
  std::vector<nbdkit_extent> list;
};
extern "C" {
nbdkit_extents* nbdkit_extents_new(uint64_t /*start*/, uint64_t /*end*/) {
  return new nbdkit_extents;
}
void nbdkit_extents_free(nbdkit_extents* extents) {
  delete extents;
}
size_t nbdkit_extents_count(const nbdkit_extents* extents) {
  return extents->list.size();
}
nbdkit_extent nbdkit_get_extent(const nbdkit_extents* extents, size_t index) {
  return extents->list[index];
}
}

namespace {

using filters::NextStorage;

struct Layer {
  nbdkit_next_ops ops{};  // the first member: nbdkit's functions get a pointer to it
  std::vector<std::byte> bytes;
  NextStorage::Shape shape;
  int error = 0;
  std::vector<std::pair<uint64_t, uint64_t>> reads;  // offset and length
  bool wrong = false;                                // a read violated the layer's rules
};

int layer_pread(nbdkit_next* next, void* buffer, uint32_t count, uint64_t offset, uint32_t flags,
                int* err) {
  auto& layer = *reinterpret_cast<Layer*>(next);
  const uint64_t end = offset + count;
  const uint64_t minimum = layer.shape.minimum;
  const uint64_t maximum = layer.shape.maximum != 0 ? layer.shape.maximum : 64 << 20;
  layer.wrong = layer.wrong || count == 0 || end > layer.bytes.size() || flags != 0 ||
                count > maximum || offset % minimum != 0 ||
                (end % minimum != 0 && end != layer.bytes.size());
  layer.reads.emplace_back(offset, count);
  if (layer.error != 0) {
    *err = layer.error;
    return -1;
  }
  if (!layer.wrong) std::memcpy(buffer, layer.bytes.data() + offset, count);
  return 0;
}

Layer make_layer(uint64_t size, uint32_t minimum = 1, uint32_t maximum = 0) {
  Layer layer;
  layer.ops.pread = layer_pread;
  layer.bytes.resize(size);
  support::Random random(size);
  random.fill(layer.bytes);
  layer.shape = {size, minimum, maximum};
  return layer;
}

std::vector<std::byte> part(const Layer& layer, uint64_t at, uint64_t length) {
  const auto begin = layer.bytes.begin() + static_cast<ptrdiff_t>(at);
  return {begin, begin + static_cast<ptrdiff_t>(length)};
}

}  // namespace

TEST_CASE("holes are reported as by the layer", "[next-storage]") {
  Layer layer = make_layer(1 << 20, 512);
  const NextStorage storage("it", layer.shape);
  const NextStorage::Through through(&layer.ops);
  static int can = 1;
  layer.ops.can_extents = [](nbdkit_next*) { return can; };
  // Reports 64 KiB of zeros in two pieces, then data, and nothing about the rest.
  layer.ops.extents = [](nbdkit_next*, uint32_t count, uint64_t offset, uint32_t,
                         nbdkit_extents* to, int* err) {
    if (offset >= 512 << 10) {
      *err = EIO;
      return -1;
    }
    constexpr uint64_t kEnds[] = {32 << 10, 64 << 10, 96 << 10};
    for (const uint64_t end : kEnds)
      if (offset < end && count > 0)
        to->list.push_back({std::max(offset, end - (32 << 10)),
                            end - std::max(offset, end - (32 << 10)),
                            end == 96 << 10 ? 0u : NBDKIT_EXTENT_ZERO | NBDKIT_EXTENT_HOLE});
    return 0;
  };
  const auto run = [&](uint64_t at, uint64_t limit) {
    const auto got = storage.run_at(HostOffset(at), limit);
    REQUIRE(got);
    return std::pair(got->data, got->length);
  };
  CHECK(run(0, 1 << 20) == std::pair(false, uint64_t{64 << 10}));
  CHECK(run(0, 1 << 10) == std::pair(false, uint64_t{1 << 10}));
  CHECK(run(16 << 10, 1 << 20) == std::pair(false, uint64_t{48 << 10}));
  CHECK(run(64 << 10, 1 << 20) == std::pair(true, uint64_t{32 << 10}));
  CHECK(run(96 << 10, 4096) == std::pair(true, uint64_t{4096}));
  // An unaligned offset, one past the end, and a layer without extents.
  CHECK(run(100, 4096) == std::pair(true, uint64_t{4096}));
  CHECK(run(2 << 20, 4096) == std::pair(true, uint64_t{4096}));
  CHECK_FALSE(storage.run_at(HostOffset(512 << 10), 4096));
  can = 0;
  CHECK(run(0, 4096) == std::pair(true, uint64_t{4096}));
}

TEST_CASE("a read longer than nbdkit allows is split", "[next-storage]") {
  Layer layer = make_layer((64 << 20) + 5);
  const NextStorage storage("it", layer.shape);
  const NextStorage::Through through(&layer.ops);
  std::vector<std::byte> all(layer.bytes.size());
  REQUIRE(storage.read(HostOffset(0), all).value() == all.size());
  CHECK((all == layer.bytes));
  CHECK_FALSE(layer.wrong);
  CHECK(layer.reads == std::vector<std::pair<uint64_t, uint64_t>>{{0, 64 << 20}, {64 << 20, 5}});
}

TEST_CASE("reads are aligned as the layer requires", "[next-storage]") {
  support::Random random(support::base_seed());
  INFO("VIRT_COMPACT_SEED=" << support::base_seed());
  for (unsigned i = 0; i < 2000; ++i) {
    const auto minimum = uint32_t{1} << random.below(13);
    const uint32_t maximum =
        random.chance(30) ? 0 : static_cast<uint32_t>(minimum * random.between(1, 9));
    Layer layer = make_layer(random.between(1, 40'000), minimum, maximum);
    const NextStorage storage("it", layer.shape);
    const NextStorage::Through through(&layer.ops);
    const uint64_t size = layer.bytes.size();
    const uint64_t at = random.below(size + 10);
    std::vector<std::byte> got(random.below(20'000));
    const uint64_t want = std::min<uint64_t>(got.size(), at < size ? size - at : 0);
    const auto done = storage.read(HostOffset(at), got);
    REQUIRE(done);
    REQUIRE(*done == want);
    got.resize(want);
    REQUIRE((got == part(layer, std::min(at, size), want)));
    REQUIRE_FALSE(layer.wrong);
    // At most one partial block at each end.
    const uint64_t longest = maximum != 0 ? maximum : 64 << 20;
    CHECK(layer.reads.size() <= 2 + want / longest + 1);
  }
}

TEST_CASE("an error of the layer keeps its errno, and names the offset", "[next-storage]") {
  Layer layer = make_layer(1000);
  layer.error = ESHUTDOWN;
  const NextStorage storage("it", layer.shape);
  const NextStorage::Through through(&layer.ops);
  std::vector<std::byte> got(10);
  const auto done = storage.read(HostOffset(0x100), got);
  REQUIRE_FALSE(done);
  CHECK(done.error().errnum() == ESHUTDOWN);
  CHECK(done.error().message().find("reading 10 bytes at 0x100 of it: ") == 0);
}

TEST_CASE("each thread reads through its latest connection", "[next-storage]") {
  Layer outer = make_layer(100);
  Layer inner = make_layer(100);
  const NextStorage storage("it", outer.shape);
  std::vector<std::byte> got(1);
  CHECK_FALSE(storage.read(HostOffset(0), got));
  {
    const NextStorage::Through a(&outer.ops);
    {
      const NextStorage::Through b(&inner.ops);
      REQUIRE(storage.read(HostOffset(1), got));
    }
    REQUIRE(storage.read(HostOffset(2), got));
  }
  CHECK_FALSE(storage.read(HostOffset(0), got));
  CHECK(inner.reads == std::vector<std::pair<uint64_t, uint64_t>>{{1, 1}});
  CHECK(outer.reads == std::vector<std::pair<uint64_t, uint64_t>>{{2, 1}});
}

TEST_CASE("the storage is read-only", "[next-storage]") {
  Layer layer = make_layer(100);
  NextStorage storage("it", layer.shape);
  const NextStorage::Through through(&layer.ops);
  const std::vector<std::byte> bytes(10);
  for (const auto& done : {storage.write(HostOffset(0), bytes), storage.flush(), storage.resize(50),
                           storage.write_zeroes(HostOffset(0), 10)}) {
    REQUIRE_FALSE(done);
    CHECK(done.error().errnum() == EROFS);
  }
  CHECK(layer.reads.empty());
}
