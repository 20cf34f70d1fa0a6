#include "qcow2/read/disk.h"
#include "qcow2/read/qcow2_layer.h"

#include "qcow2/format/l2_entry.h"
#include "qcow2/read/raw_layer.h"
#include "tests/catch_text.h"
#include "tests/qcow2/tiny_image.h"
#include "tests/support/memory_storage.h"

using namespace vc;

using namespace qcow2;
using test::TinyImage;

namespace {

std::shared_ptr<Layer> raw_layer(size_t size, uint8_t value) {
  auto layer = RawLayer::open(
      std::make_shared<MemoryStorage>("raw", std::vector<std::byte>(size, std::byte{value})));
  REQUIRE_OK(layer);
  return *layer;
}

std::shared_ptr<Layer> qcow2_layer(const TinyImage& image) {
  auto opened = image.image();
  REQUIRE_OK(opened);
  auto layer = open_active_layer(*opened);
  REQUIRE_OK(layer);
  return *layer;
}

}  // namespace

TEST_CASE("holes show the layer below, and zeros past its end", "[disk]") {
  TinyImage top(12, 8 * 4096);
  top.set_l2(1, top.cluster(5));
  top.set_l2(2, kEntryZero);
  top.fill(top.cluster(5), 4096, 0x11);
  TinyImage middle(9, 5 * 4096);
  middle.set_l2(0, middle.cluster(5));
  middle.fill(middle.cluster(5), 512, 0x22);
  const Disk disk({qcow2_layer(top), qcow2_layer(middle), raw_layer(3 * 4096 + 100, 0x33)});

  std::vector<Extent> extents;
  REQUIRE_OK(disk.map(GuestOffset(0), disk.size(), extents));
  struct {
    uint64_t at;
    ExtentKind kind;
    uint32_t depth;
  } const expected[] = {{0, ExtentKind::kData, 1},
                        {512, ExtentKind::kData, 2},
                        {4096, ExtentKind::kData, 0},
                        {8192, ExtentKind::kZero, 0},
                        {12288, ExtentKind::kData, 2},
                        // First the raw file ends, then the image above it ends.
                        {12388, ExtentKind::kUnallocated, 1},
                        {20480, ExtentKind::kUnallocated, 0}};
  REQUIRE(extents.size() == std::size(expected));
  uint64_t at = 0;
  for (size_t i = 0; i < extents.size(); ++i) {
    CAPTURE(i);
    CHECK(extents[i].guest == GuestOffset(expected[i].at));
    CHECK(extents[i].kind == expected[i].kind);
    CHECK(extents[i].depth == expected[i].depth);
    CHECK(extents[i].guest == GuestOffset(at));
    at += extents[i].length;
  }
  CHECK(at == disk.size());

  const auto all = test::read(disk, 0, disk.size());
  REQUIRE_OK(all);
  const auto range = [&](size_t from, size_t to) {
    return std::span(*all).subspan(from, to - from);
  };
  CHECK(test::all_are(range(0, 512), 0x22));
  CHECK(test::all_are(range(512, 4096), 0x33));
  CHECK(test::all_are(range(4096, 8192), 0x11));
  CHECK(test::all_are(range(8192, 12288), 0));
  CHECK(test::all_are(range(12288, 12388), 0x33));
  CHECK(test::all_are(range(12388, all->size()), 0));
}

TEST_CASE("map stops when it has enough, and covers the start", "[disk]") {
  TinyImage image(12, 8 * 4096);
  image.set_l2(1, image.cluster(5));
  image.set_l2(3, image.cluster(6));
  const Disk disk({qcow2_layer(image)});
  std::vector<Extent> extents;
  REQUIRE_OK(disk.map(GuestOffset(100), 8 * 4096 - 100, extents, 2));
  REQUIRE(extents.size() == 2);
  CHECK(extents[0].guest == GuestOffset(100));
  CHECK(extents[1].end() == GuestOffset(8192));
  // Existing elements stay, and do not count.
  REQUIRE_OK(disk.map(GuestOffset(8192), 4096, extents, 1));
  REQUIRE(extents.size() == 3);
}

TEST_CASE("a deep chain does not cause a deep recursion", "[disk]") {
  std::vector<std::shared_ptr<Layer>> layers;
  const TinyImage empty(9, 4096);
  for (int i = 0; i < 2000; ++i) layers.push_back(qcow2_layer(empty));
  layers.push_back(raw_layer(4096, 0x5a));
  const Disk disk(std::move(layers));
  CHECK(test::all_are(*test::read(disk, 0, 4096), 0x5a));
}

namespace {

// A layer of any size without data.
class HoleLayer final : public Layer {
 public:
  explicit HoleLayer(uint64_t size) : size_(size) {}
  const std::string& name() const override { return name_; }
  const char* format() const override { return "hole"; }
  uint64_t size() const override { return size_; }
  std::optional<StreamFormat> compression() const override { return std::nullopt; }
  Result<Extent> map(GuestOffset at, uint64_t limit) const override {
    ++asked;
    Extent extent;
    extent.guest = at;
    extent.length = limit;
    return extent;
  }
  Result<void> read(const Extent&, GuestOffset, std::span<std::byte>) const override { return {}; }
  Result<size_t> read_stream(const Extent&, std::span<std::byte>) const override { return 0; }

  mutable uint64_t asked = 0;

 private:
  std::string name_ = "hole";
  uint64_t size_;
};

}  // namespace

TEST_CASE("a hole of exabytes is mapped with few calls", "[disk]") {
  const auto hole = std::make_shared<HoleLayer>(INT64_MAX);
  const Disk disk({hole, std::make_shared<HoleLayer>(uint64_t{1} << 40)});
  std::vector<Extent> extents;
  REQUIRE_OK(disk.map(GuestOffset(0), disk.size(), extents));
  // After the end of the backing file, extents belong to the image above it.
  REQUIRE(extents.size() == 2);
  CHECK(extents[0].length == uint64_t{1} << 40);
  CHECK(extents[1].end() == GuestOffset(INT64_MAX));
  CHECK(hole->asked < 1000);
}
