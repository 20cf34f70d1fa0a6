// Random images of the builder. An independent walk and QEMU must find them valid and read the
// expected content.

#include <algorithm>
#include <map>
#include <optional>

#include "qcow2/build/builder.h"
#include "qcow2/format/codec.h"
#include "qcow2/format/refcount_block.h"
#include "tests/catch_text.h"
#include "tests/qcow2/build/image_walk.h"
#include "tests/support/memory_storage.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using namespace qcow2;
using support::Random;
using test::MappedCluster;
using Kind = MappedCluster::Kind;

namespace {

BuildOptions random_options(Random& random) {
  BuildOptions options;
  options.cluster_bits =
      static_cast<unsigned>(random.chance(50) ? random.between(9, 12) : random.between(13, 21));
  if (random.chance(15)) {
    options.version = 2;
  } else {
    options.refcount_order = static_cast<unsigned>(random.between(0, 6));
    options.extended_l2 = options.cluster_bits >= 14 && random.chance(50);
    options.lazy_refcounts = random.chance(30);
    if (random.chance(50)) options.compression_type = CompressionType::kZstd;
  }
  const Geometry geometry(options.cluster_bits, options.extended_l2);
  // Either a few clusters, or several L2 tables.
  options.size = random.below(uint64_t{40} << options.cluster_bits);
  if (random.chance(60)) options.size += random.below(geometry.l2_reach() * 40);
  options.size = std::min(options.size, uint64_t{1} << 42);
  return options;
}

// One image: the requests to the builder, and the expected result.
class Scenario {
 public:
  Scenario(uint64_t seed, bool readable)
      : random_(seed),
        readable_(readable),
        options_(random_options(random_)),
        storage_("built"),
        folder_() {
    if (readable_ && random_.chance(50)) make_backing();
    if (readable_) {
      auto encoder = Encoder::create({options_.compression_type, 1});
      REQUIRE_OK(encoder);
      encoder_ = std::move(*encoder);
    }
  }

  const BuildOptions& options() const { return options_; }

  void build() {
    auto builder = Builder::create(storage_, options_);
    REQUIRE_OK(builder);
    builder_ = std::move(*builder);
    place_all();
    REQUIRE_OK(builder_->finish());
    bytes_ = storage_.bytes();
    REQUIRE(bytes_.size() == builder_->counts().file_size);
  }

  void check_tables() const {
    const auto image = test::walk(bytes_);
    CHECK(image.header.version == options_.version);
    CHECK(image.header.backing_file == options_.backing_file);
    REQUIRE(image.clusters.size() == placed_.size());
    for (const auto& [cluster, placed] : placed_) {
      CAPTURE(cluster);
      const auto found = image.clusters.find(cluster);
      REQUIRE(found != image.clusters.end());
      REQUIRE(found->second.kind == placed.kind);
      REQUIRE(found->second.host == placed.host);
      REQUIRE(found->second.length >= placed.length);
    }
    check_streams_apart();
    check_metadata(image);
  }

  void check_with_qemu() const {
    support::write_file(image_path(), bytes_);
    const auto checked =
        support::run({"qemu-img", "check", "-f", "qcow2", "--output=json", image_path()});
    INFO(checked.describe());
    REQUIRE(checked.ok());
    CHECK_THAT(checked.out, Catch::Contains("\"check-errors\": 0"));
    CHECK_THAT(checked.out, !Catch::Contains("leaks"));
    CHECK_THAT(checked.out, !Catch::Contains("corruptions"));
  }

  // Must be called after check_with_qemu().
  void check_content() const {
    const std::string expected = folder_ / "expected.raw";
    support::write_file(expected, backing_);
    support::resize_file(expected, (options_.size + 511) / 512 * 512);
    for (const auto& [at, content] : content_) support::patch_file(expected, at, content);
    const std::string read = folder_ / "read.raw";
    support::run_ok({"qemu-img", "convert", "-f", "qcow2", "-O", "raw", image_path(), read});
    const auto difference = support::first_difference(expected, read);
    INFO("first difference at " << difference.value_or(0));
    CHECK_FALSE(difference.has_value());
  }

 private:
  std::string image_path() const { return folder_ / "built.qcow2"; }

  void make_backing() {
    backing_.resize(random_.below(300000) / 512 * 512);
    random_.fill(backing_);
    support::write_file(folder_ / "base.raw", backing_);
    options_.backing_file = "base.raw";
    options_.backing_format = "raw";
  }

  uint64_t disk_clusters() const {
    return builder_->geometry().clusters_for((options_.size + 511) / 512 * 512);
  }

  void place_all() {
    const Geometry& geometry = builder_->geometry();
    const uint64_t all = disk_clusters();
    // Small clusters: enough to need several refcount blocks. Large ones: few, to save time.
    uint64_t left = options_.cluster_bits <= 12   ? random_.between(0, 3000)
                    : options_.cluster_bits <= 16 ? random_.between(0, 100)
                                                  : random_.between(0, 10);
    const unsigned percent_compressed = random_.pick<unsigned>({0, 30, 95});
    for (uint64_t at = random_.below(5); at < all && left > 0;) {
      const uint64_t run = std::min({random_.between(1, 40), all - at, left});
      const uint64_t what = random_.below(100);
      if (what < 5) {
        at += random_.below(geometry.l2_entries() * 2);
      } else if (what < 15) {
        at += random_.below(30);
      } else if (what < 25 && options_.version == 3) {
        place_zeros(at, random_.chance(10) ? std::min(all - at, run * 50) : run);
        at = next_;
      } else if (random_.chance(percent_compressed)) {
        for (uint64_t i = 0; i < run; ++i) place_stream(at + i);
        at += run;
        left -= run;
      } else {
        place_plain(at, run);
        at += run;
        left -= run;
      }
    }
  }

  // Truncates the content if the disk ends inside its last cluster.
  void expect(uint64_t cluster, std::vector<std::byte> content) {
    const uint64_t at = cluster << options_.cluster_bits;
    const uint64_t size = (options_.size + 511) / 512 * 512;
    content.resize(std::min<uint64_t>(content.size(), size - at));
    content_.emplace_back(at, std::move(content));
  }

  void place_zeros(uint64_t at, uint64_t run) {
    REQUIRE_OK(builder_->place_zero(ClusterIndex(at), run));
    next_ = at + run;
    zeros_ += run;
    for (uint64_t i = 0; i < run; ++i) {
      placed_[at + i] = {Kind::kZero, 0, 0};
      if ((at + i) << options_.cluster_bits < backing_.size())
        expect(at + i, std::vector<std::byte>(builder_->geometry().cluster_size()));
    }
  }

  void place_plain(uint64_t at, uint64_t run) {
    const uint64_t cluster_size = builder_->geometry().cluster_size();
    for (uint64_t done = 0; done < run;) {
      const auto placed = builder_->place_data(ClusterIndex(at + done), run - done);
      REQUIRE_OK(placed);
      REQUIRE(placed->clusters >= 1);
      REQUIRE(placed->clusters <= run - done);
      for (uint64_t i = 0; i < placed->clusters; ++i, ++done) {
        const uint64_t host = placed->host.value() + i * cluster_size;
        placed_[at + done] = {Kind::kData, host, cluster_size};
        if (!readable_) continue;
        std::vector<std::byte> content(cluster_size);
        random_.fill(content);
        REQUIRE_OK(storage_.write(HostOffset(host), content));
        expect(at + done, std::move(content));
      }
    }
  }

  void place_stream(uint64_t at) {
    const uint64_t cluster_size = builder_->geometry().cluster_size();
    std::vector<std::byte> stream(cluster_size - 1);
    std::vector<std::byte> content(cluster_size);
    if (readable_) {
      // A part is incompressible, so that streams have all lengths.
      random_.fill(std::span(content).first(random_.below(cluster_size * 9 / 10)));
      stream.resize(encoder_->encode(content, stream));
      if (stream.empty()) return place_plain(at, 1);
    } else {
      stream.resize(random_length());
    }
    const auto host = builder_->place_compressed(ClusterIndex(at), stream.size());
    REQUIRE_OK(host);
    placed_[at] = {Kind::kCompressed, host->value(), stream.size()};
    stream_end_ = host->value() + stream.size();
    if (!readable_) return;
    REQUIRE_OK(storage_.write(*host, stream));
    expect(at, std::move(content));
  }

  // Returns the length of a stream that is never decoded. Tiny ones test the limits of narrow
  // refcounts. Ones that end with their cluster or sector test the next placement.
  uint64_t random_length() {
    const uint64_t cluster_size = builder_->geometry().cluster_size();
    const uint64_t rest = cluster_size - stream_end_ % cluster_size;
    switch (random_.below(6)) {
      case 0:
        return cluster_size - 1;
      case 1:
        return random_.between(1, std::min<uint64_t>(cluster_size - 1, 40));
      case 2:
        return rest < cluster_size ? rest : 1;
      case 3:
        return std::min(rest + 1, cluster_size - 1);
      case 4:
        return std::min(512 - stream_end_ % 512, cluster_size - 1);
      default:
        return random_.between(1, cluster_size - 1);
    }
  }

  void check_streams_apart() const {
    // In guest order, except for streams that fill gaps.
    std::map<uint64_t, uint64_t> lengths;
    for (const auto& [cluster, placed] : placed_) {
      if (placed.kind == Kind::kZero) continue;
      CAPTURE(cluster);
      REQUIRE(lengths.emplace(placed.host, placed.length).second);
    }
    uint64_t end = 0;
    for (const auto& [host, length] : lengths) {
      REQUIRE(host >= end);
      end = host + length;
    }
  }

  void check_metadata(const test::WalkedImage& image) const {
    const uint64_t cluster_size = builder_->geometry().cluster_size();
    const uint64_t file_clusters = bytes_.size() / cluster_size;
    const uint64_t bound =
        Builder::metadata_bytes(options_, image.host_clusters) / cluster_size + image.host_clusters;
    const uint64_t most_tables = std::min<uint64_t>(image.header.l1_entries, image.host_clusters);
    CAPTURE(bound, file_clusters, image.host_clusters, image.l2_tables, most_tables);
    if (zeros_ == 0) REQUIRE(file_clusters <= bound);
    // The estimate is too high only by L2 tables and their refcounts, and by little else.
    const uint64_t vain = most_tables - std::min(image.l2_tables, most_tables);
    const uint64_t per_block = refcounts_per_block(options_.cluster_bits, options_.refcount_order);
    REQUIRE(bound <= file_clusters + vain + vain / (per_block - 1) + 4);
  }

  Random random_;
  const bool readable_;  // the clusters have content
  BuildOptions options_;
  MemoryStorage storage_;
  support::TempDirectory folder_;
  std::optional<Encoder> encoder_;
  std::unique_ptr<Builder> builder_;
  std::vector<std::byte> backing_;  // of the backing file
  std::vector<std::byte> bytes_;    // of the image

  std::map<uint64_t, MappedCluster> placed_;
  std::vector<std::pair<uint64_t, std::vector<std::byte>>> content_;  // by guest offset
  uint64_t zeros_ = 0;
  uint64_t next_ = 0;
  uint64_t stream_end_ = 0;
};

void try_images(uint64_t images, bool readable) {
  for (uint64_t i = 0; i < images; ++i) {
    const uint64_t seed = support::base_seed() + i;
    Scenario scenario(seed, readable);
    const BuildOptions& options = scenario.options();
    CAPTURE(seed, readable, options.size, options.version, options.cluster_bits,
            options.refcount_order, options.extended_l2);
    scenario.build();
    scenario.check_tables();
    scenario.check_with_qemu();
    if (readable) scenario.check_content();
  }
}

}  // namespace

TEST_CASE("the refcounts of images of every shape are right", "[builder][property]") {
  try_images(support::iterations(60), false);
}

TEST_CASE("QEMU reads what was built", "[builder][property]") {
  try_images(support::iterations(25), true);
}
