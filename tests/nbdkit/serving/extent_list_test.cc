// Tests NBD extents of disks whose map entries are known.
#include "nbdkit/serving/extent_list.h"

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <functional>

#include "tests/catch_text.h"

using namespace vc;

using nbdkit::list_extents;
using nbdkit::NbdExtent;
using qcow2::Extent;
using qcow2::ExtentKind;

namespace {

constexpr uint32_t kHole = NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO;
constexpr uint64_t kGiB = uint64_t{1} << 30;

// A layer of clusters whose kinds a function returns, with one map entry for each cluster.
class Clusters final : public qcow2::Layer {
 public:
  using KindOf = std::function<ExtentKind(uint64_t cluster)>;
  Clusters(uint64_t cluster_size, uint64_t size, KindOf kind_of)
      : cluster_size_(cluster_size), size_(size), kind_of_(std::move(kind_of)) {}

  const std::string& name() const override { return name_; }
  const char* format() const override { return "qcow2"; }
  uint64_t size() const override { return size_; }
  std::optional<StreamFormat> compression() const override {
    return StreamFormat{qcow2::CompressionType::kZstd, cluster_size_};
  }
  Result<Extent> map(GuestOffset at, uint64_t limit) const override {
    ++looks;
    if (at.value() == broken_at) return fail(Error::corrupt("broken here"));
    Extent extent;
    extent.guest = at;
    extent.kind = kind_of_(at.value() / cluster_size_);
    extent.preallocated = extent.kind == ExtentKind::kZero && preallocated;
    extent.host = HostOffset(at.value());
    extent.length = std::min(limit, cluster_size_ - at.value() % cluster_size_);
    return extent;
  }
  Result<void> read(const Extent&, GuestOffset, std::span<std::byte>) const override { return {}; }
  Result<size_t> read_stream(const Extent&, std::span<std::byte>) const override {
    return size_t{0};
  }

  mutable uint64_t looks = 0;  // number of requested entries
  uint64_t broken_at = UINT64_MAX;
  bool preallocated = false;

 private:
  const std::string name_ = "clusters";
  const uint64_t cluster_size_;
  const uint64_t size_;
  const KindOf kind_of_;
};

// Cluster i is of kind kinds[i]; later clusters have the last kind.
std::shared_ptr<Clusters> clusters(const std::vector<ExtentKind>& kinds,
                                   uint64_t cluster_size = 4096, uint64_t size = 16 * kGiB) {
  return std::make_shared<Clusters>(cluster_size, size, [kinds](uint64_t i) {
    return kinds[std::min<uint64_t>(i, kinds.size() - 1)];
  });
}

void check(const Result<std::vector<NbdExtent>>& got, const std::vector<NbdExtent>& expected) {
  REQUIRE_OK(got);
  REQUIRE(got->size() == expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    CAPTURE(i);
    CHECK((*got)[i].offset == expected[i].offset);
    CHECK((*got)[i].length == expected[i].length);
    CHECK((*got)[i].type == expected[i].type);
  }
}

}  // namespace

TEST_CASE("data and compressed clusters share an extent, zeros and holes do not", "[extents]") {
  using enum ExtentKind;
  const auto layer = clusters({kData, kCompressed, kCompressed, kData, kZero, kUnallocated, kData});
  const qcow2::Disk disk({layer});
  check(list_extents(disk, 0, 7 * 4096, false),
        {{0, 4 * 4096, 0}, {4 * 4096, 2 * 4096, kHole}, {6 * 4096, 4096, 0}});
  layer->preallocated = true;
  check(list_extents(disk, 0, 7 * 4096, false), {{0, 4 * 4096, 0},
                                                 {4 * 4096, 4096, NBDKIT_EXTENT_ZERO},
                                                 {5 * 4096, 4096, kHole},
                                                 {6 * 4096, 4096, 0}});
}

TEST_CASE("extents end where the request ends", "[extents]") {
  using enum ExtentKind;
  const qcow2::Disk disk({clusters({kCompressed, kData, kUnallocated})});
  check(list_extents(disk, 100, 1, false), {{100, 1, 0}});
  check(list_extents(disk, 4095, 2, false), {{4095, 2, 0}});
  check(list_extents(disk, 8191, 2, false), {{8191, 1, 0}, {8192, 1, kHole}});
  // Lengths of requests have 32 bits. A longer extent crashes old versions of nbdkit.
  const uint64_t longest = 4 * kGiB - 1;
  check(list_extents(disk, 8192, longest, false), {{8192, longest, kHole}});
}

TEST_CASE("with one, the list has exactly the first extent", "[extents]") {
  using enum ExtentKind;
  const auto layer = clusters({kData, kCompressed, kData, kUnallocated, kData, kZero});
  check(list_extents(qcow2::Disk({layer}), 10, kGiB, true), {{10, 3 * 4096 - 10, 0}});
  check(list_extents(qcow2::Disk({layer}), 3 * 4096 + 10, kGiB, true),
        {{3 * 4096 + 10, 4096 - 10, kHole}});
  CHECK(layer->looks < 1000);
}

TEST_CASE("the work for one request is bounded", "[extents]") {
  using enum ExtentKind;
  std::shared_ptr<Clusters> layer;
  std::vector<std::shared_ptr<qcow2::Layer>> chain;
  SECTION("clusters of alternating kinds") {
    layer = std::make_shared<Clusters>(
        512, 4 * kGiB, [](uint64_t i) { return i % 2 == 0 ? kData : kUnallocated; });
    chain = {layer};
  }
  SECTION("compressed clusters only") {
    layer = clusters({kCompressed}, 512, 4 * kGiB);
    chain = {layer};
  }
  SECTION("one hole of very many entries") {
    layer = clusters({kUnallocated}, 512, 4 * kGiB);
    chain = {layer};
  }
  SECTION("one hole in a deep chain") {
    layer = clusters({kUnallocated}, 512, 4 * kGiB);
    chain.assign(100, layer);
  }
  const auto list = list_extents(qcow2::Disk(chain), 1000, 4 * kGiB - 1000, false);
  REQUIRE_OK(list);
  CHECK(layer->looks <= 2 << 20);
  // The answer still has extents, and they are not tiny.
  REQUIRE_FALSE(list->empty());
  CHECK(list->front().offset == 1000);
  CHECK(list->back().offset + list->back().length - 1000 >= 1 << 20);
}

TEST_CASE("a map that cannot be read is an error", "[extents]") {
  const auto layer = clusters({ExtentKind::kData});
  layer->broken_at = 3 * 4096;
  REQUIRE_FAILS_WITH(list_extents(qcow2::Disk({layer}), 0, kGiB, false), "broken here");
  check(list_extents(qcow2::Disk({layer}), 0, 3 * 4096, false), {{0, 3 * 4096, 0}});
}
