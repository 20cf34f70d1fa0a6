#include "qcow2/build/builder.h"
#include "qcow2/read/qcow2_layer.h"

#include <cerrno>
#include <set>

#include "qcow2/format/header.h"
#include "qcow2/format/refcount_block.h"
#include "qcow2/read/disk.h"
#include "qcow2/read/image.h"
#include "tests/catch_text.h"
#include "tests/qcow2/build/image_walk.h"
#include "tests/support/memory_storage.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using namespace qcow2;

namespace {

// Records the writes. Stores only the header, so that files may be huge.
class WrittenStorage final : public Storage {
 public:
  struct Write {
    uint64_t at;
    uint64_t length;
    bool aligned_memory;
  };

  // `fail_at`: index of the write that fails.
  explicit WrittenStorage(uint64_t fail_at = UINT64_MAX) : fail_at_(fail_at) {}

  const std::string& name() const override { return name_; }
  Result<size_t> read(HostOffset, std::span<std::byte>) const override {
    return fail(Error::system(EBADF, name_));
  }
  Result<void> write(HostOffset at, std::span<const std::byte> from) override {
    if (count_++ == fail_at_) return fail(Error::system(ENOSPC, name_));
    if (at.value() == 0) header_.assign(from.begin(), from.end());
    if (keep_writes_)
      writes_.push_back(
          {at.value(), from.size(), reinterpret_cast<uintptr_t>(from.data()) % 4096 == 0});
    return {};
  }
  Result<void> flush() override { return {}; }
  Result<uint64_t> size() const override { return size_; }
  Result<void> resize(uint64_t size) override {
    size_ = size;
    return {};
  }
  Result<Run> run_at(HostOffset, uint64_t limit) const override { return Run{limit, true}; }

  void forget_writes() { keep_writes_ = false; }
  const std::vector<Write>& writes() const { return writes_; }
  const std::vector<std::byte>& header() const { return header_; }

 private:
  const std::string name_ = "written.qcow2";
  const uint64_t fail_at_;
  uint64_t count_ = 0;
  uint64_t size_ = 0;
  bool keep_writes_ = true;
  std::vector<Write> writes_;
  std::vector<std::byte> header_;
};

void check_with_qemu(const MemoryStorage& storage) {
  const support::TempDirectory folder;
  support::write_file(folder / "built.qcow2", storage.bytes());
  const auto checked =
      support::run({"qemu-img", "check", "-f", "qcow2", "-U", folder / "built.qcow2"});
  INFO(checked.describe());
  REQUIRE(checked.ok());
}

BuildOptions small_options() {
  BuildOptions options;
  options.size = 1 << 20;
  options.cluster_bits = 12;
  return options;
}

// Places some of everything, with several L2 tables and refcount blocks. Stops at the first error.
Result<void> place_and_finish(Builder& builder) {
  for (uint64_t i = 0; i < 600; i += 6) {
    RETURN_IF_ERROR(builder.place_data(ClusterIndex(i), 1));
    RETURN_IF_ERROR(builder.place_compressed(ClusterIndex(i + 1), 100 + i % 300));
    RETURN_IF_ERROR(builder.place_compressed(ClusterIndex(i + 2), 311));
    RETURN_IF_ERROR(builder.place_zero(ClusterIndex(i + 4), 2));
  }
  return builder.finish();
}

}  // namespace

TEST_CASE("an empty disk, and a disk of 0 bytes", "[builder]") {
  BuildOptions options;
  options.version = GENERATE(2u, 3u);
  options.cluster_bits = GENERATE(9u, 16u, 21u);
  options.size = GENERATE(0u, 1u, 1u << 20);
  MemoryStorage storage("built");
  auto builder = Builder::create(storage, options);
  REQUIRE_OK(builder);
  REQUIRE_OK((*builder)->finish());
  const auto image = test::walk(storage.bytes());
  CHECK(image.clusters.empty());
  CHECK(image.l2_tables == 0);
  CHECK(image.header.size == (options.size + 511) / 512 * 512);
  // The header, the L1 table, the refcount table and a refcount block.
  CHECK(storage.bytes().size() >> options.cluster_bits == 4);
  check_with_qemu(storage);
}

TEST_CASE("a host cluster holds only as many streams as its refcount can count", "[builder]") {
  BuildOptions options;
  options.size = uint64_t{1} << 38;
  options.cluster_bits = 21;
  options.refcount_order = GENERATE(0u, 1u, 2u, 3u, 4u);
  const uint64_t most = max_refcount(options.refcount_order);
  WrittenStorage storage;
  auto builder = Builder::create(storage, options);
  REQUIRE_OK(builder);
  const auto first = (*builder)->place_compressed(ClusterIndex(0), 10);
  REQUIRE_OK(first);
  for (uint64_t i = 1; i < most; ++i) {
    const auto next = (*builder)->place_compressed(ClusterIndex(i), 10);
    REQUIRE_OK(next);
    if (next->value() != first->value() + i * 10) FAIL("stream " << i << " is not packed");
  }
  const auto beyond = (*builder)->place_compressed(ClusterIndex(most), 10);
  REQUIRE_OK(beyond);
  CHECK(beyond->value() == first->value() + (1 << 21));
}

TEST_CASE("streams are packed to the byte", "[builder]") {
  MemoryStorage storage("built");
  auto builder = Builder::create(storage, small_options());
  REQUIRE_OK(builder);
  const auto first = (*builder)->place_compressed(ClusterIndex(0), 3001);
  const auto crossing = (*builder)->place_compressed(ClusterIndex(1), 3000);
  const auto filling = (*builder)->place_compressed(ClusterIndex(2), 2 * 4096 - 6001);
  const auto after = (*builder)->place_compressed(ClusterIndex(3), 1);
  const auto data = (*builder)->place_data(ClusterIndex(4), 1);
  // A stream that fits goes to the gap before the data. A longer one gets a cluster of its own.
  const auto left = (*builder)->place_compressed(ClusterIndex(5), 4000);
  const auto fresh = (*builder)->place_compressed(ClusterIndex(6), 100);
  const auto behind = (*builder)->place_compressed(ClusterIndex(7), 100);
  REQUIRE_OK(behind);
  CHECK(first->value() == 4096);
  CHECK(crossing->value() == 4096 + 3001);
  CHECK(filling->value() == 4096 + 6001);
  CHECK(after->value() == 3 * 4096);
  CHECK(data->host.value() == 4 * 4096);
  CHECK(left->value() == 3 * 4096 + 1);
  CHECK(fresh->value() == 5 * 4096);
  CHECK(behind->value() == 5 * 4096 + 100);
  REQUIRE_OK((*builder)->finish());
  test::walk(storage.bytes());
}

TEST_CASE("a stream does not overlap the place of a refcount block", "[builder]") {
  BuildOptions options;
  options.size = 1 << 20;
  options.cluster_bits = 9;
  options.refcount_order = 6;  // 64 refcounts per block: the first block is cluster 63
  MemoryStorage storage("built");
  auto builder = Builder::create(storage, options);
  REQUIRE_OK(builder);
  const auto data = (*builder)->place_data(ClusterIndex(0), 61);
  REQUIRE_OK(data);
  REQUIRE(data->clusters == 61);
  const auto last = (*builder)->place_compressed(ClusterIndex(61), 300);
  REQUIRE_OK(last);
  CHECK(last->value() == 62 * 512);
  SECTION("it begins after the block") {
    const auto next = (*builder)->place_compressed(ClusterIndex(62), 213);
    REQUIRE_OK(next);
    CHECK(next->value() == 64 * 512);
  }
  SECTION("a stream that ends right before the block fits") {
    const auto next = (*builder)->place_compressed(ClusterIndex(62), 212);
    REQUIRE_OK(next);
    CHECK(next->value() == 62 * 512 + 300);
  }
  REQUIRE_OK((*builder)->finish());
  test::walk(storage.bytes());
  check_with_qemu(storage);
}

TEST_CASE("data is placed in parts at the end of a table or range", "[builder]") {
  BuildOptions options;
  options.size = 1 << 20;
  options.cluster_bits = 9;
  MemoryStorage storage("built");
  auto builder = Builder::create(storage, options);
  REQUIRE_OK(builder);
  // A table has 64 entries; a refcount block covers 256 clusters.
  uint64_t at = 10;
  std::vector<uint64_t> parts;
  while (at < 300) {
    const auto placed = (*builder)->place_data(ClusterIndex(at), 300 - at);
    REQUIRE_OK(placed);
    parts.push_back(placed->clusters);
    at += placed->clusters;
  }
  // After the third L2 table, 254 - 1 - 54 - 64 - 64 - 3 = 68 clusters are left before 255.
  CHECK(parts == std::vector<uint64_t>{54, 64, 64, 64, 4, 40});
  REQUIRE_OK((*builder)->finish());
  test::walk(storage.bytes());
}

TEST_CASE("metadata is written in whole clusters, once, and the header last", "[builder]") {
  BuildOptions options;
  options.size = 4 << 20;
  options.cluster_bits = GENERATE(9u, 12u, 16u);
  options.refcount_order = 6;
  WrittenStorage storage;
  auto builder = Builder::create(storage, options);
  REQUIRE_OK(builder);
  if (options.cluster_bits == 16) {
    REQUIRE_OK((*builder)->place_data(ClusterIndex(5), 3));
    REQUIRE_OK((*builder)->finish());
  } else {
    REQUIRE_OK(place_and_finish(**builder));
  }
  const uint64_t cluster_size = (*builder)->geometry().cluster_size();
  std::set<uint64_t> written;
  for (const auto& write : storage.writes()) {
    CHECK(write.at % cluster_size == 0);
    CHECK(write.length % cluster_size == 0);
    CHECK(write.aligned_memory);
    for (uint64_t at = write.at; at < write.at + write.length; at += cluster_size)
      CHECK(written.insert(at).second);
  }
  CHECK(storage.writes().back().at == 0);
  CHECK(*storage.size() == (*builder)->counts().file_size);
  CHECK(*written.rbegin() + cluster_size <= *storage.size());
}

TEST_CASE("after an error of the storage, no header is written", "[builder]") {
  BuildOptions options;
  options.size = 1 << 20;
  options.cluster_bits = 9;
  options.refcount_order = 6;
  uint64_t fail_at = 0;
  for (;; ++fail_at) {
    WrittenStorage storage(fail_at);
    auto builder = Builder::create(storage, options);
    REQUIRE_OK(builder);
    const auto done = place_and_finish(**builder);
    if (done) break;
    CHECK(done.error().errnum() == ENOSPC);
    CHECK_THAT(done.error().message(), Catch::Contains("written.qcow2"));
    CHECK(storage.header().empty());
  }
  CHECK(fail_at > 15);
}

TEST_CASE("the header has the requested options", "[builder]") {
  BuildOptions options = small_options();
  options.backing_file = "base.raw";
  options.backing_format = "raw";
  SECTION("version 2") {
    options.version = 2;
  }
  SECTION("version 3") {
    options.compression_type = CompressionType::kZstd;
    options.lazy_refcounts = true;
    options.cluster_bits = 14;
    options.extended_l2 = true;
    options.refcount_order = 1;
  }
  MemoryStorage storage("built");
  auto builder = Builder::create(storage, options);
  REQUIRE_OK(builder);
  REQUIRE_OK((*builder)->finish());
  const Header header = test::walk(storage.bytes()).header;
  CHECK(header.version == options.version);
  CHECK(header.cluster_bits == options.cluster_bits);
  CHECK(header.backing_file == "base.raw");
  CHECK(header.backing_format() == "raw");
  CHECK(header.refcount_order == options.refcount_order);
  CHECK(header.compression_type == options.compression_type);
  const bool v3 = options.version == 3;
  CHECK(header.incompatible_features ==
        (v3 ? incompatible::kCompressionType | incompatible::kExtendedL2 : 0));
  CHECK(header.compatible_features == (v3 ? compatible::kLazyRefcounts : 0));
  CHECK(header.autoclear_features == 0);
  CHECK((header.find_extension(HeaderExtension::kFeatureNames) != nullptr) == v3);
}

TEST_CASE("a full header omits the feature names, not the backing file", "[builder]") {
  BuildOptions options = small_options();
  options.cluster_bits = 9;
  options.backing_file.assign(300, 'b');
  MemoryStorage storage("built");
  auto builder = Builder::create(storage, options);
  REQUIRE_OK(builder);
  REQUIRE_OK((*builder)->finish());
  const Header header = test::walk(storage.bytes()).header;
  CHECK(header.backing_file == options.backing_file);
  CHECK(header.extensions.empty());

  options.backing_file.assign(400, 'b');
  REQUIRE_FAILS_WITH(Builder::create(storage, options), "more than a cluster");
}

TEST_CASE("invalid build options are refused", "[builder]") {
  MemoryStorage storage("built");
  BuildOptions options;
  options.size = 1 << 20;
  SECTION("invalid versions") {
    options.version = GENERATE(0u, 1u, 4u);
    REQUIRE_FAILS_WITH(Builder::create(storage, options), "2 or 3");
  }
  SECTION("features that version 2 lacks") {
    options.version = 2;
    switch (GENERATE(0, 1, 2, 3)) {
      case 0:
        options.extended_l2 = true;
        break;
      case 1:
        options.lazy_refcounts = true;
        break;
      case 2:
        options.compression_type = CompressionType::kZstd;
        break;
      default:
        options.refcount_order = GENERATE(3u, 5u);
        REQUIRE_FAILS_WITH(Builder::create(storage, options), "compat=0.10");
        return;
    }
    REQUIRE_FAILS_WITH(Builder::create(storage, options), "compat=1.1");
  }
  SECTION("zero clusters in version 2") {
    options.version = 2;
    auto builder = Builder::create(storage, options);
    REQUIRE_OK(builder);
    REQUIRE_FAILS_WITH((*builder)->place_zero(ClusterIndex(0), 1), "compat=0.10");
  }
  SECTION("invalid cluster sizes") {
    options.cluster_bits = GENERATE(0u, 8u, 22u);
    REQUIRE_FAILS_WITH(Builder::create(storage, options), "512 bytes to 2 MiB");
  }
  SECTION("refcounts that are too wide") {
    options.refcount_order = 7;
    REQUIRE_FAILS_WITH(Builder::create(storage, options), "64 bits at most");
  }
  SECTION("small clusters with subclusters") {
    options.extended_l2 = true;
    options.cluster_bits = 13;
    REQUIRE_FAILS_WITH(Builder::create(storage, options), "16 KiB at least");
  }
  SECTION("backing names that QEMU does not read") {
    options.backing_format = "raw";
    REQUIRE_FAILS_WITH(Builder::create(storage, options), "without a backing file");
    options.backing_file = "base";
    options.backing_format.assign(16, 'x');
    REQUIRE_FAILS_WITH(Builder::create(storage, options), "15 at most");
    options.backing_format = "raw";
    options.backing_file.assign(1024, 'x');
    REQUIRE_FAILS_WITH(Builder::create(storage, options), "1023 at most");
  }
  SECTION("clusters out of order, or outside") {
    auto builder = Builder::create(storage, options);
    REQUIRE_OK(builder);
    REQUIRE_OK((*builder)->place_data(ClusterIndex(3), 1));
    REQUIRE_FAILS_WITH((*builder)->place_data(ClusterIndex(3), 1), "out of order");
    REQUIRE_FAILS_WITH((*builder)->place_compressed(ClusterIndex(2), 1), "out of order");
    REQUIRE_FAILS_WITH((*builder)->place_zero(ClusterIndex(3), 1), "out of order");
    REQUIRE_FAILS_WITH((*builder)->place_data(ClusterIndex(15), 2), "outside of the disk");
    REQUIRE_FAILS_WITH((*builder)->place_zero(ClusterIndex(15), 2), "outside of the disk");
    REQUIRE_FAILS_WITH((*builder)->place_data(ClusterIndex(UINT64_MAX), 1), "outside of the disk");
    REQUIRE_FAILS_WITH((*builder)->place_zero(ClusterIndex(15), 0), "outside of the disk");
    REQUIRE_FAILS_WITH((*builder)->place_compressed(ClusterIndex(4), 0), " 0 bytes");
    REQUIRE_FAILS_WITH((*builder)->place_compressed(ClusterIndex(4), 65536), "65536 bytes");
    // None of the failed calls had an effect.
    REQUIRE_OK((*builder)->place_zero(ClusterIndex(15), 1));
    REQUIRE_OK((*builder)->finish());
    CHECK(test::walk(storage.bytes()).clusters.size() == 2);
  }
}

TEST_CASE("the largest disk that an L1 table can map", "[builder]") {
  WrittenStorage storage;
  BuildOptions options;
  options.cluster_bits = 9;
  options.size = uint64_t{128} << 30;
  auto builder = Builder::create(storage, options);
  REQUIRE_OK(builder);
  REQUIRE_OK((*builder)->place_data(ClusterIndex((options.size >> 9) - 1), 1));
  REQUIRE_OK((*builder)->finish());
  const auto read = Header::read(MemoryStorage("header", storage.header()));
  REQUIRE_OK(read);
  CHECK(read->l1_entries * 8 == Limits::kL1Bytes);

  options.size += 1;
  REQUIRE_FAILS_WITH(Builder::create(storage, options), "too large for clusters of 512 bytes");
  options.size = UINT64_MAX;
  REQUIRE_FAILS_WITH(Builder::create(storage, options), "too large");
}

TEST_CASE("a file that is too large for QEMU's refcount table is refused", "[builder]") {
  BuildOptions options;
  options.cluster_bits = 9;
  options.refcount_order = 6;
  options.size = uint64_t{128} << 30;
  // The first stream fits into the last cluster with free space. The second one fills this cluster.
  uint64_t room = UINT64_MAX;
  for (const bool finish : {false, true}) {
    WrittenStorage storage;
    storage.forget_writes();
    auto builder = Builder::create(storage, options);
    REQUIRE_OK(builder);
    uint64_t at = 0;
    while (at < room) {
      const auto placed =
          (*builder)->place_data(ClusterIndex(at), std::min<uint64_t>(64, room - at));
      if (!placed) {
        REQUIRE_FAILS_WITH(placed, "written.qcow2: the file cannot be longer than");
        REQUIRE_FAILS_WITH((*builder)->place_zero(ClusterIndex(at), 1), "cannot be longer");
        REQUIRE_FAILS_WITH((*builder)->place_compressed(ClusterIndex(at), 1), "cannot be longer");
        break;
      }
      at += placed->clusters;
    }
    room = at;
    if (!finish) continue;
    REQUIRE_OK((*builder)->finish());
    const auto header = Header::read(MemoryStorage("header", storage.header()));
    REQUIRE_OK(header);
    CHECK(header->refcount_table_clusters * 512 <= Limits::kRefcountTableBytes);
    // Nearly all of 2^20 blocks of 64 clusters.
    CHECK(*storage.size() / 512 > (uint64_t{1} << 20) * 64 - 500);
  }
}

TEST_CASE("a stream past the reach of its descriptor is refused", "[builder]") {
  // With clusters of 2 MiB, a descriptor has 49 bits for the offset.
  BuildOptions options;
  options.cluster_bits = 21;
  options.size = uint64_t{1} << 50;
  WrittenStorage storage;
  storage.forget_writes();
  auto builder = Builder::create(storage, options);
  REQUIRE_OK(builder);
  // The last cluster that it can address is a refcount block's, the one before is a stream's.
  const uint64_t last_cluster = (uint64_t{1} << (49 - 21)) - 2;
  uint64_t at = 0;
  uint64_t end = 1;  // current end of the file
  while (end < last_cluster) {
    const auto placed = (*builder)->place_data(ClusterIndex(at), (last_cluster - end + 1) / 2);
    REQUIRE_OK(placed);
    at += placed->clusters;
    end = (placed->host.value() >> 21) + placed->clusters;
  }
  REQUIRE(end == last_cluster);
  const auto last = (*builder)->place_compressed(ClusterIndex(at), 2'000'000);
  REQUIRE_OK(last);
  CHECK(last->value() >> 21 == last_cluster);
  REQUIRE_OK((*builder)->place_compressed(ClusterIndex(at + 1), 1));
  REQUIRE_FAILS_WITH((*builder)->place_compressed(ClusterIndex(at + 2), 2'000'000),
                     "written.qcow2: compressed data at 0x2000000000000");
}

TEST_CASE("a dry run counts preallocated clusters without a step for each of them", "[builder]") {
  const auto length = [](const BuildOptions& options, bool dry, uint64_t first) {
    MemoryStorage storage("dry");
    const auto builder = Builder::create(storage, options);
    REQUIRE_OK(builder);
    uint64_t at = 0;
    // There is other data before and after it.
    for (; at < first; ++at) REQUIRE_OK((*builder)->place_compressed(ClusterIndex(at), 300));
    const uint64_t end = (options.size >> options.cluster_bits) - first;
    if (dry && at < end) {
      REQUIRE_OK((*builder)->skip_preallocated(ClusterIndex(at), end - at));
      at = end;
    }
    while (at < end) {
      const auto placed = (*builder)->place_preallocated(ClusterIndex(at), end - at);
      REQUIRE_OK(placed);
      at += placed->clusters;
    }
    for (; at < end + first; ++at) REQUIRE_OK((*builder)->place_data(ClusterIndex(at), 1));
    REQUIRE_OK((*builder)->finish());
    return std::pair((*builder)->counts().file_size, (*builder)->counts().preallocated_clusters);
  };
  for (const unsigned bits : {9u, 12u})
    for (const unsigned order : {0u, 4u, 6u})
      for (const uint64_t clusters : {2, 63, 64, 65, 511, 512, 4000, 4096, 33000})
        for (const uint64_t first : {0, 1}) {
          BuildOptions options;
          options.cluster_bits = bits;
          options.refcount_order = order;
          options.size = clusters << bits;
          CAPTURE(bits, order, clusters, first);
          CHECK(length(options, true, first) == length(options, false, first));
        }
  BuildOptions options;
  options.cluster_bits = 14;
  options.extended_l2 = true;
  options.size = uint64_t{3000} << 14;
  CHECK(length(options, true, 0) == length(options, false, 0));
  options.data_file = "data";
  CHECK(length(options, true, 0) == length(options, false, 0));
}

TEST_CASE("preallocated clusters read as zeros, whatever the file held before", "[builder]") {
  BuildOptions options = small_options();
  SECTION("version 2") {
    options.version = 2;
  }
  SECTION("version 3") {}
  SECTION("with subclusters") {
    options.cluster_bits = 16;
    options.extended_l2 = true;
  }
  // A device with old content.
  auto storage =
      std::make_shared<MemoryStorage>("device", std::vector<std::byte>(4 << 20, std::byte{0xee}));
  auto builder = Builder::create(*storage, options, Builder::Gaps::kUnknown);
  REQUIRE_OK(builder);
  const uint64_t clusters = options.size >> options.cluster_bits;
  for (uint64_t at = 0; at < clusters;) {
    const auto placed = (*builder)->place_preallocated(ClusterIndex(at), clusters - at);
    REQUIRE_OK(placed);
    at += placed->clusters;
  }
  REQUIRE_OK((*builder)->finish());
  auto header = Header::read(*storage);
  REQUIRE_OK(header);
  const auto image =
      Image::open(storage, *std::move(header), nullptr, std::make_shared<TableCache>(1 << 20));
  REQUIRE_OK(image);
  const auto layer = open_active_layer(*image);
  REQUIRE_OK(layer);
  const Disk disk({*layer});
  std::vector<std::byte> read(options.size, std::byte{1});
  REQUIRE_OK(disk.read(GuestOffset(0), read));
  CHECK(read == std::vector<std::byte>(options.size));
}
