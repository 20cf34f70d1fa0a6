// Reads through a layer that keeps book, and takes no read that nbdkit would not take.
#include "filters/next_storage.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "tests/catch_text.h"
#include "tests/support/random.h"

namespace {

using filters::NextStorage;
using qcow2::HostOffset;

struct Layer {
  nbdkit_next_ops ops{};  // the first member: nbdkit's functions get a pointer to it
  std::vector<std::byte> bytes;
  NextStorage::Shape shape;
  int error = 0;
  std::vector<std::pair<uint64_t, uint64_t>> reads;  // offset and length
  bool wrong = false;                                // a read broke the layer's rules
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

TEST_CASE("reads are as the layer wants them", "[next-storage]") {
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
    // A bounce for each end, no more.
    const uint64_t longest = maximum != 0 ? maximum : 64 << 20;
    CHECK(layer.reads.size() <= 2 + want / longest + 1);
  }
}

TEST_CASE("an error of the layer keeps its errno, and says where", "[next-storage]") {
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

TEST_CASE("each thread reads through what it said last", "[next-storage]") {
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

TEST_CASE("nothing is changed through it", "[next-storage]") {
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
