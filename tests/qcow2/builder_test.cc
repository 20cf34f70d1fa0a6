#include "qcow2/builder.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <random>

#include "qcow2/byte_order.h"
#include "qcow2/header.h"
#include "qcow2/l2_entry.h"
#include "qcow2/memory_storage.h"
#include "qcow2/refcount_block.h"
#include "tests/catch_text.h"
#include "tests/qcow2/scratch_folder.h"

using namespace qcow2;

namespace {

uint64_t base_seed() {
  const char* given = std::getenv("VIRT_COMPACT_SEED");
  return given ? std::strtoull(given, nullptr, 0) : 1;
}

// What was asked of the builder, to be found again in the image.
struct Placed {
  enum Kind { kData, kCompressed, kZero } kind;
  uint64_t host;
  uint64_t length;
};
using Model = std::map<uint64_t, Placed>;

BuildOptions random_options(std::mt19937_64& random) {
  BuildOptions options;
  options.cluster_bits = 9 + static_cast<unsigned>(random() % 13);
  options.refcount_order = static_cast<unsigned>(random() % 7);
  if (random() % 6 == 0) {
    options.version = 2;
    options.refcount_order = 4;
  } else {
    options.extended_l2 = options.cluster_bits >= 14 && random() % 3 == 0;
    options.lazy_refcounts = random() % 3 == 0;
    if (random() % 2) options.compression_type = CompressionType::kZstd;
  }
  // Small clusters: enough of them for several refcount blocks and L2 tables.  Large: a few.
  const uint64_t clusters = options.cluster_bits <= 12   ? 3000
                            : options.cluster_bits <= 16 ? 200
                                                         : 12;
  options.size = random() % (clusters << options.cluster_bits);
  if (random() % 4 == 0) options.size += uint64_t{1} << (options.cluster_bits + 14);
  return options;
}

Model place_randomly(Builder& builder, const BuildOptions& options, std::mt19937_64& random) {
  Model model;
  const Geometry& geometry = builder.geometry();
  const uint64_t cluster_size = geometry.cluster_size();
  const uint64_t all = geometry.clusters_for((options.size + 511) / 512 * 512);
  const uint64_t stop = std::min<uint64_t>(all, cluster_size <= 4096    ? 3000
                                                : cluster_size <= 65536 ? 200
                                                                        : 12);
  const bool compress_only = random() % 3 == 0;
  for (uint64_t at = random() % 5; at < stop;) {
    const uint64_t what = compress_only ? 4 : random() % 8;
    const uint64_t run = std::min<uint64_t>(1 + random() % 40, all - at);
    if (what == 0) {
      at += random() % 30;
    } else if (what == 1 && options.version == 3) {
      REQUIRE_OK(builder.place_zero(ClusterIndex(at), run));
      for (uint64_t i = 0; i < run; ++i) model[at + i] = {Placed::kZero, 0, 0};
      at += run;
    } else if (what <= 3) {
      for (uint64_t done = 0; done < run;) {
        const auto placed = builder.place_data(ClusterIndex(at + done), run - done);
        REQUIRE_OK(placed);
        REQUIRE(placed->clusters >= 1);
        REQUIRE(placed->clusters <= run - done);
        for (uint64_t i = 0; i < placed->clusters; ++i)
          model[at + done + i] = {Placed::kData, placed->host.value() + i * cluster_size,
                                  cluster_size};
        done += placed->clusters;
      }
      at += run;
    } else {
      // Often tiny, so that narrow refcounts are put to the test.
      const uint64_t limit =
          random() % 2 ? cluster_size - 1 : std::min<uint64_t>(cluster_size - 1, 40);
      const uint64_t length = 1 + random() % limit;
      const auto host = builder.place_compressed(ClusterIndex(at), length);
      REQUIRE_OK(host);
      model[at] = {Placed::kCompressed, host->value(), length};
      ++at;
    }
  }
  return model;
}

// Reads the tables of a finished image with as little of the engine as can be, and checks that each
// cluster is counted as often as it is referenced, and that the mapping is the model's.
void verify(const MemoryStorage& storage, const Model& model, const BuildCounts& counts) {
  const auto header = Header::read(storage);
  REQUIRE_OK(header);
  const Geometry geometry = header->geometry();
  const uint64_t cluster_size = geometry.cluster_size();
  const std::vector<std::byte> file = storage.bytes();
  REQUIRE(file.size() == counts.file_size);
  REQUIRE(file.size() % cluster_size == 0);

  std::vector<uint64_t> references(file.size() / cluster_size);
  const auto refer = [&](uint64_t offset, uint64_t length) {
    REQUIRE(offset + length <= file.size());
    for (uint64_t c = offset / cluster_size; c <= (offset + length - 1) / cluster_size; ++c)
      ++references[c];
  };
  refer(0, cluster_size);
  refer(header->l1_table.value(), std::max<uint64_t>(header->l1_entries, 1) * 8);
  refer(header->refcount_table.value(), header->refcount_table_clusters * cluster_size);

  Model found;
  for (uint64_t i = 0; i < header->l1_entries; ++i) {
    const uint64_t l1 = load_be64(&file[header->l1_table.value() + i * 8]);
    if (l1 == 0) continue;
    REQUIRE((l1 & kEntryCopied) != 0);
    const uint64_t table = l1 & kEntryOffsetMask;
    refer(table, cluster_size);
    bool used = false;
    for (uint64_t j = 0; j < geometry.l2_entries(); ++j) {
      const std::byte* at = &file[table + j * geometry.l2_entry_size()];
      const L2Entry entry{load_be64(at), geometry.extended_l2() ? load_be64(at + 8) : 0};
      if (entry.word == 0 && entry.bitmap == 0) continue;
      used = true;
      const uint64_t cluster = i * geometry.l2_entries() + j;
      if (entry.compressed()) {
        REQUIRE_FALSE(entry.copied());
        REQUIRE(entry.bitmap == 0);
        const auto descriptor = CompressedDescriptor::decode(entry.word, header->cluster_bits);
        const uint64_t offset = descriptor.offset.value();
        refer(offset, descriptor.readable_bytes());
        REQUIRE(model.at(cluster).length <= descriptor.readable_bytes());
        found[cluster] = {Placed::kCompressed, offset, model.at(cluster).length};
      } else if (entry.zero_flag() || entry.zero_mask() == 0xffffffff) {
        REQUIRE(entry.host().value() == 0);
        found[cluster] = {Placed::kZero, 0, 0};
      } else {
        REQUIRE(entry.copied());
        if (geometry.extended_l2()) REQUIRE(entry.bitmap == 0xffffffff);
        refer(entry.host().value(), cluster_size);
        found[cluster] = {Placed::kData, entry.host().value(), cluster_size};
      }
    }
    REQUIRE(used);
  }
  REQUIRE(found.size() == model.size());
  for (const auto& [cluster, placed] : model) {
    CAPTURE(cluster);
    REQUIRE(found.contains(cluster));
    REQUIRE(found[cluster].kind == placed.kind);
    REQUIRE(found[cluster].host == placed.host);
  }

  const uint64_t per_block = refcounts_per_block(header->cluster_bits, header->refcount_order);
  std::vector<uint64_t> blocks;
  for (uint64_t at = header->refcount_table.value(); blocks.size() * per_block < references.size();
       at += 8) {
    blocks.push_back(load_be64(&file[at]));
    refer(blocks.back(), cluster_size);
  }
  for (uint64_t c = 0; c < references.size(); ++c) {
    const std::span block(&file[blocks[c / per_block]], cluster_size);
    CAPTURE(c, references.size());
    REQUIRE(get_refcount(block, c % per_block, header->refcount_order) == references[c]);
  }
}

void check_with_qemu(const MemoryStorage& storage) {
  const test::ScratchFolder folder;
  const std::string path = folder / "built.qcow2";
  const auto bytes = storage.bytes();
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  const std::string command = "qemu-img check -q -f qcow2 '" + path + "' >/dev/null 2>&1";
  REQUIRE(std::system(command.c_str()) == 0);
}

}  // namespace

TEST_CASE("images of every shape are counted right", "[builder]") {
  const char* scale = std::getenv("VIRT_COMPACT_ITERATIONS");
  const uint64_t images = scale ? std::max(std::strtoull(scale, nullptr, 0), 1ULL) : 100;
  for (uint64_t i = 0; i < images; ++i) {
    const uint64_t seed = base_seed() + i;
    std::mt19937_64 random(seed);
    const BuildOptions options = random_options(random);
    CAPTURE(seed, options.cluster_bits, options.refcount_order, options.size, options.version);
    MemoryStorage storage("built");
    auto builder = Builder::create(storage, options);
    REQUIRE_OK(builder);
    const Model model = place_randomly(**builder, options, random);
    REQUIRE_OK((*builder)->finish());
    verify(storage, model, (*builder)->counts());
    const uint64_t used = (*builder)->counts().data_clusters;
    if ((*builder)->counts().compressed_clusters == 0 && (*builder)->counts().zero_clusters == 0) {
      const uint64_t bound = Builder::metadata_bytes(options, used);
      CHECK((*builder)->counts().file_size <= bound + (used << options.cluster_bits));
    }
    if (i % 4 == 0) check_with_qemu(storage);
  }
}

TEST_CASE("an empty disk, and one of no bytes", "[builder]") {
  BuildOptions options;
  options.cluster_bits = GENERATE(9u, 16u, 21u);
  options.size = GENERATE(0u, 1u, 1u << 20);
  MemoryStorage storage("built");
  auto builder = Builder::create(storage, options);
  REQUIRE_OK(builder);
  REQUIRE_OK((*builder)->finish());
  verify(storage, {}, (*builder)->counts());
  check_with_qemu(storage);
  CHECK(Header::read(storage)->size % 512 == 0);
}

TEST_CASE("narrow refcounts keep streams apart", "[builder]") {
  BuildOptions options;
  options.size = 1 << 20;
  options.cluster_bits = 12;
  options.refcount_order = 0;
  MemoryStorage storage("built");
  auto builder = Builder::create(storage, options);
  REQUIRE_OK(builder);
  const auto first = (*builder)->place_compressed(ClusterIndex(0), 100);
  const auto second = (*builder)->place_compressed(ClusterIndex(1), 100);
  REQUIRE_OK(first);
  REQUIRE_OK(second);
  CHECK(second->value() == first->value() + 4096);
}

TEST_CASE("streams are packed to the byte", "[builder]") {
  BuildOptions options;
  options.size = 1 << 20;
  options.cluster_bits = 12;
  MemoryStorage storage("built");
  auto builder = Builder::create(storage, options);
  REQUIRE_OK(builder);
  const auto first = (*builder)->place_compressed(ClusterIndex(0), 3001);
  const auto second = (*builder)->place_compressed(ClusterIndex(1), 3000);
  const auto data = (*builder)->place_data(ClusterIndex(2), 1);
  REQUIRE_OK(data);
  CHECK(second->value() == first->value() + 3001);
  CHECK(data->host.value() == first->value() + 2 * 4096);
}

TEST_CASE("what cannot be built is refused", "[builder]") {
  MemoryStorage storage("built");
  BuildOptions options;
  options.size = 1 << 20;
  SECTION("options that contradict each other") {
    options.version = 2;
    options.extended_l2 = true;
    REQUIRE_FAILS_WITH(Builder::create(storage, options), "compat=1.1");
  }
  SECTION("small clusters with subclusters") {
    options.extended_l2 = true;
    options.cluster_bits = 12;
    REQUIRE_FAILS_WITH(Builder::create(storage, options), "16 KiB at least");
  }
  SECTION("a disk that the clusters cannot map") {
    options.cluster_bits = 9;
    options.size = (uint64_t{128} << 30) + 1;
    REQUIRE_FAILS_WITH(Builder::create(storage, options), "too large for clusters of 512 bytes");
    options.size = UINT64_MAX;
    REQUIRE_FAILS_WITH(Builder::create(storage, options), "too large");
  }
  SECTION("clusters out of order, or outside") {
    auto builder = Builder::create(storage, options);
    REQUIRE_OK(builder);
    REQUIRE_OK((*builder)->place_data(ClusterIndex(3), 1));
    REQUIRE_FAILS_WITH((*builder)->place_data(ClusterIndex(3), 1), "out of order");
    REQUIRE_FAILS_WITH((*builder)->place_data(ClusterIndex(15), 2), "outside of the disk");
    REQUIRE_FAILS_WITH((*builder)->place_compressed(ClusterIndex(4), 65536), "65536 bytes");
  }
}
