// Copies of whole local images.

#include "copy/copier.h"

#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>

#include "copy/source/local_source.h"
#include "tests/catch_text.h"
#include "tests/copy/disks.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using copy::CopyOptions;
using qcow2::CompressionType;
using qcow2::Format;
using support::list_directory;
using support::read_file;
using support::run_ok;
using support::TempDirectory;
using test::from_to;
using test::run_copy;

namespace {

using Names = std::vector<std::string>;

// Not a multiple of any cluster size.
constexpr size_t kDiskSize = (6 << 20) + 37 * 512;

}  // namespace

TEST_CASE("a copy is valid, equal and the same for any number of threads", "[copy]") {
  const uint64_t seed = support::base_seed();
  INFO("VIRT_COMPACT_SEED=" << seed);
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", seed, kDiskSize);
  run_ok({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", folder / "raw", folder / "src"});
  // Stored zeros.
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -P 0 1M 1M", folder / "src"});
  run_ok({"qemu-io", "-f", "raw", "-c", "write -P 0 1M 1M", folder / "raw"});

  for (const bool compress : {false, true})
    for (const unsigned cluster_bits : {9u, 12u, 16u, 21u}) {
      INFO("compressed: " << compress << ", cluster bits: " << cluster_bits);
      std::vector<std::byte> first;
      for (const unsigned threads : {1u, 2u, 8u}) {
        CopyOptions options = from_to(folder / "src", folder / "out");
        if (compress) options.compression.type = CompressionType::kZstd;
        options.image.cluster_bits = cluster_bits;
        options.threads = threads;
        options.overwrite = true;
        const auto summary = run_copy(options);
        REQUIRE_OK(summary);
        CHECK(test::qemu_complaint(folder / "out", folder / "raw") == "");
        const auto bytes = read_file(folder / "out");
        if (threads == 1) first = bytes;
        CHECK(bytes == first);
        CHECK(list_directory(folder.path()) == Names{"out", "raw", "src"});

        const uint64_t clusters = (kDiskSize + summary->cluster_size - 1) >> cluster_bits;
        CHECK(summary->virtual_size == kDiskSize);
        CHECK(summary->cluster_size == uint64_t{1} << cluster_bits);
        CHECK(summary->data_clusters + summary->compressed_clusters + summary->zero_clusters ==
              clusters);
        CHECK((summary->compressed_clusters > 0) == compress);
        CHECK(summary->destination->length == bytes.size());
        struct stat status {};
        REQUIRE(::stat((folder / "out").c_str(), &status) == 0);
        CHECK(summary->destination->blocks == static_cast<uint64_t>(status.st_blocks) * 512);
        REQUIRE(::stat((folder / "src").c_str(), &status) == 0);
        REQUIRE(summary->source.has_value());
        CHECK(summary->source->length == static_cast<uint64_t>(status.st_size));
        CHECK(summary->source->blocks == static_cast<uint64_t>(status.st_blocks) * 512);
        // The zeros written into the source are found in whole clusters.
        CHECK(summary->found_zero_clusters + 1 >= uint64_t{1 << 20} >> cluster_bits);
        CHECK(summary->passed_through_clusters == 0);
      }
    }
}

TEST_CASE("raw disks of any size are rounded up to sectors with zeros", "[copy]") {
  const TempDirectory folder;
  for (const size_t size : {1u, 511u, 512u, 1000u, 65536u, 65537u, 1048576u + 1u}) {
    INFO("size: " << size);
    const auto bytes = std::vector<std::byte>(size, std::byte{0x5a});
    support::write_file(folder / "raw", bytes);
    CopyOptions options = from_to(folder / "raw", folder / "out");
    options.overwrite = true;
    options.source_format = Format::kRaw;
    const auto summary = run_copy(options);
    REQUIRE_OK(summary);
    CHECK(summary->data_clusters == (size + 65535) / 65536);
    run_ok({"qemu-img", "check", "-q", "-f", "qcow2", folder / "out"});
    run_ok({"qemu-img", "convert", "-f", "qcow2", "-O", "raw", folder / "out", folder / "back"});
    auto expected = bytes;
    expected.resize((size + 511) / 512 * 512);
    CHECK(read_file(folder / "back") == expected);
  }
}

TEST_CASE("a disk of 0 bytes is copied", "[copy]") {
  const TempDirectory folder;
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", folder / "src", "0"});
  const auto summary = run_copy(from_to(folder / "src", folder / "out"));
  REQUIRE_OK(summary);
  CHECK(summary->zero_clusters == 0);
  run_ok({"qemu-img", "check", "-q", "-f", "qcow2", folder / "out"});
}

TEST_CASE("an empty disk of 16 TiB is not read", "[copy]") {
  const TempDirectory folder;
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", folder / "src", "16T"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -P 7 15T 4k", folder / "src"});
  const auto summary = run_copy(from_to(folder / "src", folder / "out"));
  REQUIRE_OK(summary);
  CHECK(summary->data_clusters == 1);
  CHECK(summary->zero_clusters == (uint64_t{16} << 40 >> 16) - 1);
  CHECK(summary->elapsed < std::chrono::seconds(60));
  run_ok({"qemu-img", "check", "-q", "-f", "qcow2", folder / "out"});
  run_ok({"qemu-io", "-r", "-f", "qcow2", "-c", "read -P 7 15T 4k", folder / "out"});
}

TEST_CASE("compressed clusters are passed through unchanged", "[copy]") {
  const uint64_t seed = support::base_seed();
  INFO("VIRT_COMPACT_SEED=" << seed);
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", seed, kDiskSize);
  run_ok({"qemu-img", "convert", "-c", "-o", "compression_type=zstd", "-f", "raw", "-O", "qcow2",
          folder / "raw", folder / "base"});
  // Adds plain data, a compressed cluster of our own, and a compressed cluster of zeros.
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "compression_type=zstd", "-F", "qcow2",
          "-b", "base", folder / "src"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -P 1 64k 4k", "-c", "write -c -P 2 256k 64k", "-c",
          "write -c -P 0 512k 64k", folder / "src"});
  run_ok({"qemu-io", "-f", "raw", "-c", "write -P 1 64k 4k", "-c", "write -P 2 256k 64k", "-c",
          "write -P 0 512k 64k", folder / "raw"});

  CopyOptions options = from_to(folder / "src", folder / "out");
  options.compression.type = CompressionType::kZstd;
  options.overwrite = true;
  const auto summary = run_copy(options);
  REQUIRE_OK(summary);
  CHECK(test::qemu_complaint(folder / "out", folder / "raw") == "");
  CHECK(summary->passed_through_clusters > 0);
  CHECK(summary->found_zero_clusters > 0);

  // Our own streams are copied unchanged, with the same result.
  options.source = folder / "out";
  options.destination = folder / "again";
  const auto again = run_copy(options);
  REQUIRE_OK(again);
  // The disk ends inside the last cluster.
  CHECK(again->passed_through_clusters + 1 >= again->compressed_clusters);
  CHECK(read_file(folder / "again") == read_file(folder / "out"));

  // Streams are not copied unchanged to another cluster size or to an uncompressed image.
  options.image.cluster_bits = 15;
  const auto other_size = run_copy(options);
  REQUIRE_OK(other_size);
  CHECK(other_size->passed_through_clusters == 0);
  CHECK(test::qemu_complaint(folder / "again", folder / "raw") == "");
  options.image.cluster_bits.reset();
  options.compression.type.reset();
  const auto plain = run_copy(options);
  REQUIRE_OK(plain);
  CHECK(plain->compressed_clusters == 0);
  CHECK(test::qemu_complaint(folder / "again", folder / "raw") == "");
}

TEST_CASE("data past the end of the disk is not copied", "[copy]") {
  // The disk ends inside a compressed cluster of a larger backing file.
  const TempDirectory folder;
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "compression_type=zstd", folder / "base",
          "128k"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -c -P 9 0 64k", folder / "base"});
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "compression_type=zstd", "-F", "qcow2",
          "-b", "base", folder / "src", "32k"});
  CopyOptions options = from_to(folder / "src", folder / "out");
  options.compression.type = CompressionType::kZstd;
  REQUIRE_OK(run_copy(options));
  run_ok({"qemu-img", "check", "-q", "-f", "qcow2", folder / "out"});
  run_ok({"qemu-img", "resize", "-q", "-f", "qcow2", folder / "out", "64k"});
  run_ok({"qemu-io", "-r", "-f", "qcow2", "-c", "read -P 9 0 32k", "-c", "read -P 0 32k 32k",
          folder / "out"});
}

TEST_CASE("an internal snapshot is copied", "[copy]") {
  const TempDirectory folder;
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", folder / "src", "1M"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -P 3 0 128k", folder / "src"});
  run_ok({"qemu-img", "snapshot", "-c", "then", folder / "src"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -P 4 0 1M", folder / "src"});
  CopyOptions options = from_to(folder / "src", folder / "out");
  options.snapshot = "then";
  const auto summary = run_copy(options);
  REQUIRE_OK(summary);
  CHECK(summary->data_clusters == 2);
  run_ok({"qemu-io", "-r", "-f", "qcow2", "-c", "read -P 3 0 128k", "-c", "read -P 0 128k 896k",
          folder / "out"});
  options.snapshot = "never";
  options.destination = folder / "other";
  REQUIRE_FAILS_WITH(run_copy(options), "never");
  CHECK(list_directory(folder.path()) == Names{"out", "src"});
}

TEST_CASE("no file of the source is overwritten, under any name", "[copy]") {
  const TempDirectory folder;
  run_ok({"qemu-img", "create", "-q", "-f", "raw", folder / "base", "1M"});
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base", "-o",
          "data_file=" + (folder / "data"), folder / "src"});
  REQUIRE(::link((folder / "src").c_str(), (folder / "hard").c_str()) == 0);
  REQUIRE(::symlink("src", (folder / "soft").c_str()) == 0);
  const auto before = read_file(folder / "src");
  for (const char* name : {"src", "hard", "soft", "base", "data"})
    for (const bool overwrite : {false, true}) {
      INFO(name);
      CopyOptions options = from_to(folder / "src", folder / name);
      options.overwrite = overwrite;
      const auto refused = run_copy(options);
      REQUIRE_FALSE(refused.has_value());
      const std::string& message = refused.error().message();
      INFO(message);
      CHECK(message.find(folder / name) != std::string::npos);
      CHECK((message.find("same file") != std::string::npos ||
             message.find("reads from") != std::string::npos));
    }
  CHECK(read_file(folder / "src") == before);
  CHECK(list_directory(folder.path()) == Names{"base", "data", "hard", "soft", "src"});
}

TEST_CASE("an existing destination is replaced only on request, and by a complete copy", "[copy]") {
  const TempDirectory folder;
  support::write_file(folder / "raw", std::vector<std::byte>(100'000, std::byte{1}));
  support::write_file(folder / "out", "precious");
  CopyOptions options = from_to(folder / "raw", folder / "out");
  REQUIRE_FAILS_WITH(run_copy(options), folder / "out");
  CHECK(read_file(folder / "out").size() == 8);
  options.overwrite = true;
  options.source = folder / "nothing";
  REQUIRE_FAILS_WITH(run_copy(options), folder / "nothing");
  CHECK(read_file(folder / "out").size() == 8);
  options.source = folder / "raw";
  REQUIRE_OK(run_copy(options));
  run_ok({"qemu-img", "check", "-q", "-f", "qcow2", folder / "out"});
}

TEST_CASE("the rest of a copy is read from a source that is known late", "[copy]") {
  const TempDirectory folder;
  const std::string base = folder / "base";
  const std::string src = folder / "src";
  const std::string late = folder / "late";
  test::make_lived_in_raw(folder / "raw", support::base_seed(), kDiskSize);
  run_ok({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", folder / "raw", base});
  const auto overlay = [](const std::string& path, const std::string& below, const char* write) {
    run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", below, "-F", "qcow2", path});
    run_ok({"qemu-io", "-f", "qcow2", "-c", write, path});
  };
  overlay(src, base, "write -q -P 5 1M 2M");
  overlay(late, src, "write -q -P 6 2M 1M");
  // Shows that the first part is read from the source itself.
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 6 1M 64k", late});

  // Expected: the start of the source, and the rest of `late`.
  const std::string expected = folder / "expected";
  run_ok({"qemu-img", "convert", "-f", "qcow2", "-O", "raw", late, expected});
  run_ok({"qemu-io", "-f", "raw", "-c", "write -q -P 5 1M 64k", expected});
  for (const bool keeps_backing : {false, true})
    for (const bool compress : {false, true})
      for (const uint64_t begin : {uint64_t{0}, uint64_t{2} << 20, uint64_t{6} << 20}) {
        INFO("backing: " << keeps_backing << ", compressed: " << compress << ", " << begin);
        CopyOptions options = from_to(src, folder / "out");
        options.overwrite = true;
        if (compress) options.compression.type = CompressionType::kZstd;
        if (keeps_backing) options.image.backing_file = base;
        unsigned opened = 0;
        options.late = copy::LateSource{begin, [&] {
                                          ++opened;
                                          return copy::LocalSource::open(late, {});
                                        }};
        REQUIRE_OK(run_copy(options));
        CHECK(opened == 1);
        const std::string like = begin == 0 ? late : begin > 2 << 20 ? src : expected;
        run_ok({"qemu-img", "check", "-q", folder / "out"});
        run_ok({"qemu-img", "compare", "-q", "-f", like == expected ? "raw" : "qcow2", "-F",
                "qcow2", like, folder / "out"});
      }
}

TEST_CASE("unused space is omitted in both parts of a copy", "[copy]") {
  const TempDirectory folder;
  support::write_file(folder / "src", std::vector<std::byte>(4 << 20, std::byte{7}));
  CopyOptions options = from_to(folder / "src", folder / "out");
  options.unused = std::make_shared<const guest::Ranges>(guest::one_range(1 << 20, 3 << 20));
  options.late =
      copy::LateSource{2 << 20, [&] { return copy::LocalSource::open(folder / "src", {}); }};
  REQUIRE_OK(run_copy(options));
  run_ok({"qemu-io", "-f", "raw", "-c", "write -q -z 1M 2M", folder / "src"});
  CHECK(test::qemu_complaint(folder / "out", folder / "src") == "");
}

TEST_CASE("a copy without a rest leaves nothing", "[copy]") {
  const TempDirectory folder;
  support::write_file(folder / "src", std::vector<std::byte>(4 << 20, std::byte{7}));
  support::write_file(folder / "other", std::vector<std::byte>(5 << 20, std::byte{7}));
  const auto error = [&](uint64_t begin, const std::string& rest) {
    CopyOptions options = from_to(folder / "src", folder / "out");
    options.late =
        copy::LateSource{begin, [&] { return copy::LocalSource::open(folder / rest, {}); }};
    const auto copied = run_copy(options);
    CHECK(list_directory(folder.path()) == Names{"other", "src"});
    return copied ? std::string() : copied.error().message();
  };
  CHECK_THAT(error(1 << 20, "missing"), Catch::Contains("missing"));
  CHECK_THAT(error(1 << 20, "other"), Catch::Contains("has another size than"));
  CHECK_THAT(error((1 << 20) + 512, "src"), Catch::Contains("cannot be a late one"));
  CHECK_THAT(error(5 << 20, "src"), Catch::Contains("cannot be a late one"));
}

TEST_CASE("a cancelled copy leaves nothing", "[copy]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 1, 24 << 20);
  support::write_file(folder / "out", "precious");
  for (const unsigned threads : {1u, 4u}) {
    test::Watcher watcher;
    Cancel cancel;
    watcher.on_update = [&](uint64_t done) {
      if (done > 4 << 20) cancel.request();
    };
    CopyOptions options = from_to(folder / "raw", folder / "out");
    options.overwrite = true;
    options.threads = threads;
    options.compression.type = CompressionType::kZstd;
    options.compression.level = 19;
    const auto cancelled = copy::copy(options, watcher, cancel);
    REQUIRE_FALSE(cancelled.has_value());
    CHECK(cancelled.error().kind() == Error::Kind::kCancelled);
    CHECK(watcher.last < watcher.total);
    CHECK(list_directory(folder.path()) == Names{"out", "raw"});
    CHECK(read_file(folder / "out").size() == 8);
  }
}

TEST_CASE("a slow codec does not keep a cancelled copy waiting", "[copy]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 2, 24 << 20);
  test::Watcher watcher;
  Cancel cancel;
  std::chrono::steady_clock::time_point asked;
  watcher.on_update = [&](uint64_t) {
    if (cancel.requested()) return;
    asked = std::chrono::steady_clock::now();
    cancel.request();
  };
  CopyOptions options = from_to(folder / "raw", folder / "out");
  options.threads = 1;
  options.compression.type = CompressionType::kZstd;
  options.compression.level = 19;
  REQUIRE_FALSE(copy::copy(options, watcher, cancel).has_value());
  CHECK(std::chrono::steady_clock::now() - asked < std::chrono::seconds(10));
}

TEST_CASE("a damaged source causes an error that names it, and leaves nothing", "[copy]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 3, kDiskSize);
  SECTION("truncated") {
    run_ok({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", folder / "raw", folder / "src"});
    support::resize_file(folder / "src", 2 << 20);
  }
  SECTION("a compressed cluster with random bytes") {
    run_ok({"qemu-img", "convert", "-c", "-o", "compression_type=zstd", "-f", "raw", "-O", "qcow2",
            folder / "raw", folder / "src"});
    std::vector<std::byte> noise(256 << 10);
    support::Random(4).fill(noise);
    support::patch_file(folder / "src", 1 << 20, noise);
  }
  for (const bool compress : {false, true}) {
    CopyOptions options = from_to(folder / "src", folder / "out");
    if (compress) options.compression.type = CompressionType::kZstd;
    const auto failed = run_copy(options);
    REQUIRE_FALSE(failed.has_value());
    INFO(failed.error().message());
    CHECK(failed.error().kind() == Error::Kind::kCorrupt);
    CHECK(failed.error().message().starts_with(folder / "src"));
    CHECK(failed.error().message().find("0x") != std::string::npos);
    CHECK(list_directory(folder.path()) == Names{"raw", "src"});
  }
}

TEST_CASE("impossible requests are refused with a message", "[copy]") {
  const TempDirectory folder;
  support::write_file(folder / "raw", std::vector<std::byte>(4096, std::byte{1}));
  CopyOptions options = from_to(folder / "raw", folder / "out");
  options.image.cluster_bits = 8;
  REQUIRE_FAILS_WITH(run_copy(options), "cluster");
  options.image.cluster_bits = 22;
  REQUIRE_FAILS_WITH(run_copy(options), "cluster");
  options.image.cluster_bits.reset();
  options.compression.type = CompressionType::kZstd;
  options.compression.level = 23;
  REQUIRE_FAILS_WITH(run_copy(options), "level");
  options.compression.level = 0;
  options.snapshot = "x";
  REQUIRE_FAILS_WITH(run_copy(options), folder / "raw");
  options.snapshot.clear();
  options.source = "https://example.org/disk";
  REQUIRE_FAILS_WITH(run_copy(options), "nbdkit");
  options.source = folder / "raw";
  options.destination = folder / "no/out";
  REQUIRE_FAILS_WITH(run_copy(options), folder / "no/out");
  CHECK(list_directory(folder.path()) == Names{"raw"});
}

namespace {

// A small filesystem that exists while the object lives. Needs root.
class SmallFilesystem {
 public:
  SmallFilesystem(const std::string& at, const std::string& size) : at_(at) {
    ::mkdir(at.c_str(), 0700);
    mounted_ = ::mount("tmpfs", at.c_str(), "tmpfs", 0, ("size=" + size).c_str()) == 0;
  }
  ~SmallFilesystem() {
    if (mounted_) ::umount(at_.c_str());
  }
  bool mounted() const { return mounted_; }

 private:
  std::string at_;
  bool mounted_ = false;
};

}  // namespace

TEST_CASE("a copy needs enough space to start, and leaves nothing if space runs out", "[copy]") {
  const TempDirectory folder;
  const SmallFilesystem small(folder / "small", "4M");
  if (!small.mounted()) {
    WARN("skipped: no filesystem can be mounted here");
    return;
  }
  std::vector<std::byte> noise(12 << 20);
  support::Random(5).fill(noise);
  support::write_file(folder / "noise", noise);
  CopyOptions options = from_to(folder / "noise", folder / "small/out");
  const auto refused = run_copy(options);
  REQUIRE_FALSE(refused.has_value());
  INFO(refused.error().message());
  CHECK(refused.error().errnum() == ENOSPC);
  CHECK(refused.error().message().find(folder / "small") != std::string::npos);
  CHECK(refused.error().message().find("MiB") != std::string::npos);
  CHECK(list_directory(folder / "small").empty());

  SECTION("a raw disk") {
    options.format = qcow2::Format::kRaw;
    REQUIRE_FAILS_WITH(run_copy(options), "the copy needs about 1");
    CHECK(list_directory(folder / "small").empty());
    support::write_file(folder / "zeros", std::vector<std::byte>(12 << 20));
    options.source = folder / "zeros";
    REQUIRE_OK(run_copy(options));
  }
  SECTION("compressible data fits") {
    support::write_file(folder / "text", std::vector<std::byte>(12 << 20, std::byte{'x'}));
    options.source = folder / "text";
    options.compression.type = CompressionType::kZstd;
    REQUIRE_OK(run_copy(options));
    run_ok({"qemu-img", "check", "-q", "-f", "qcow2", folder / "small/out"});
  }
  SECTION("stored zeros fit") {
    support::write_file(folder / "zeros", std::vector<std::byte>(12 << 20));
    options.source = folder / "zeros";
    REQUIRE_OK(run_copy(options));
  }
  SECTION("free space that another process takes during the copy") {
    // There is enough space at first. Another process takes it during the copy.
    support::write_file(folder / "little", std::span(noise).first(3 << 20));
    options.source = folder / "little";
    test::Watcher watcher;
    watcher.on_update = [&](uint64_t) {
      if (watcher.updates == 1)
        support::run({"dd", "if=/dev/zero", "of=" + (folder / "small/hog"), "bs=64k"});
    };
    options.threads = 1;
    const Cancel cancel;
    const auto full = copy::copy(options, watcher, cancel);
    REQUIRE_FALSE(full.has_value());
    INFO(full.error().message());
    CHECK(full.error().errnum() == ENOSPC);
    CHECK(full.error().message().starts_with(folder / "small/out"));
    CHECK(list_directory(folder / "small") == Names{"hog"});
  }
}
