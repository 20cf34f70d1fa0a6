// Verification of copies.

#include "copy/verify.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <functional>

#include "copy/sink/digest_sink.h"
#include "copy/sink/null_sink.h"
#include "copy/sink/qcow2_sink.h"
#include "copy/source/local_source.h"
#include "copy/source/nbd_source.h"
#include "copy/source/stream_source.h"
#include "storage/output_file.h"
#include "tests/catch_text.h"
#include "tests/copy/disks.h"
#include "tests/support/nbd_server.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using copy::Digests;
using copy::DigestSink;
using copy::LocalSource;
using copy::NbdSource;
using copy::Pipeline;
using copy::VerifySummary;
using qcow2::CompressionType;
using support::NbdServer;
using support::run_ok;
using support::TempDirectory;

namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr size_t kDiskSize = (6 << 20) + 37 * 512;

// Records the phases in their order.
class PhaseWatcher final : public Progress {
 public:
  void begin(Phase phase) override { verifying = phase == Phase::kVerify; }
  void update(uint64_t done, uint64_t of) override {
    if (!verifying) return;
    last = done;
    total = of;
    if (on_update) on_update();
  }

  bool verifying = false;
  uint64_t last = 0;
  uint64_t total = 0;
  std::function<void()> on_update;
};

Pipeline::Options plan(unsigned cluster_bits, std::optional<CompressionType> compression = {}) {
  Pipeline::Options options;
  options.worker.geometry = qcow2::Geometry(cluster_bits, false);
  options.worker.compression.type = compression;
  options.chunk_size = std::max(kMiB, uint64_t{1} << cluster_bits);
  options.chunks = 5;
  options.threads = 3;
  return options;
}

// Copies with digests, without the other steps of a copy.
Result<void> copy_with_digests(LocalSource& source, const std::string& to, Digests& digests,
                               const Pipeline::Options& options) {
  qcow2::BuildOptions build;
  build.size = source.size();
  build.cluster_bits = options.worker.geometry.cluster_bits();
  build.compression_type = options.worker.compression.type.value_or(CompressionType::kDeflate);
  ASSIGN_OR_RETURN(const auto out, OutputFile::create(to, true));
  ASSIGN_OR_RETURN(const auto sink, copy::Qcow2Sink::create(*out, nullptr, {.build = build}));
  DigestSink digesting(*sink, digests, options.worker.compression.type);
  PhaseWatcher progress;
  const Cancel cancel;
  Stop stop(cancel);
  Pipeline pipeline(source, digesting, progress, stop, options);
  RETURN_IF_ERROR(pipeline.run());
  RETURN_IF_ERROR(digesting.finish());
  return out->commit();
}

// Returns the digests of a disk after its copy to `to`.
std::unique_ptr<Digests> copied(const std::string& from, const std::string& to,
                                const Pipeline::Options& options) {
  auto source = LocalSource::open(from, {});
  REQUIRE_OK(source);
  auto digests =
      std::make_unique<Digests>((*source)->size(), options.worker.geometry.cluster_size());
  REQUIRE_OK(copy_with_digests(**source, to, *digests, options));
  return digests;
}

Result<VerifySummary> verify_file(const Digests& digests, const std::string& path,
                                  std::optional<qcow2::Format> format = {}) {
  copy::forget_cached(path);
  ASSIGN_OR_RETURN(const auto source, LocalSource::open(path, {.format = format}));
  PhaseWatcher progress;
  const Cancel cancel;
  auto summary = copy::verify(digests, *source, plan(16), progress, cancel);
  if (summary) {
    CHECK(progress.verifying);
    CHECK(progress.last == progress.total);
    CHECK(progress.last >= digests.size());
  }
  return summary;
}

Result<VerifySummary> verify_nbd(const Digests& digests, const std::string& uri) {
  const Cancel cancel;
  const Stop stop(cancel);
  NbdSource::Options nbd;
  nbd.tuning.connections = 2;
  ASSIGN_OR_RETURN(const auto source, NbdSource::open(uri, nbd, stop));
  PhaseWatcher progress;
  return copy::verify(digests, *source, plan(16), progress, cancel);
}

void make_qcow2(const std::string& raw, const std::string& to,
                const std::vector<std::string>& options = {}) {
  std::vector<std::string> command{"qemu-img", "convert", "-f", "raw", "-O", "qcow2"};
  command.insert(command.end(), options.begin(), options.end());
  command.insert(command.end(), {raw, to});
  run_ok(command);
}

// Returns how many pages of a file are in the page cache.
size_t pages_in_memory(const std::string& path, size_t size) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  REQUIRE(fd >= 0);
  void* const at = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  REQUIRE(at != MAP_FAILED);
  std::vector<unsigned char> pages(size / static_cast<size_t>(::getpagesize()));
  REQUIRE(::mincore(at, size, pages.data()) == 0);
  ::munmap(at, size);
  ::close(fd);
  return static_cast<size_t>(
      std::count_if(pages.begin(), pages.end(), [](unsigned char it) { return (it & 1) != 0; }));
}

}  // namespace

TEST_CASE("correct copies of every kind are verified", "[verify]") {
  const uint64_t seed = support::base_seed();
  INFO("VIRT_COMPACT_SEED=" << seed);
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", seed, kDiskSize);
  const std::string zstd = "compression_type=zstd,cluster_size=";
  make_qcow2(folder / "raw", folder / "zstd-64k", {"-c", "-o", zstd + "64k"});
  make_qcow2(folder / "raw", folder / "zstd-4k", {"-c", "-o", zstd + "4k"});
  for (const std::string source : {"raw", "zstd-64k", "zstd-4k"})
    for (const unsigned cluster_bits : {9u, 16u, 21u})
      for (const bool compress : {false, true}) {
        CAPTURE(source, cluster_bits, compress);
        const auto compression =
            compress ? std::optional(CompressionType::kZstd) : std::optional<CompressionType>();
        const auto digests =
            copied(folder / source, folder / "copy", plan(cluster_bits, compression));
        REQUIRE(test::qemu_complaint(folder / "copy", folder / "raw") == "");
        const auto summary = verify_file(*digests, folder / "copy");
        REQUIRE_OK(summary);
        CHECK(summary->size == kDiskSize);
        CHECK(summary->read > 0);
        CHECK(summary->read <= kDiskSize);
        // A raw copy is verified, too.
        REQUIRE_OK(verify_file(*digests, folder / "raw", qcow2::Format::kRaw));
      }
}

TEST_CASE("a copy on a server is read back from the server", "[verify]") {
  const uint64_t seed = support::base_seed();
  INFO("VIRT_COMPACT_SEED=" << seed);
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", seed, kDiskSize);
  const auto digests = copied(folder / "raw", folder / "copy", plan(16));
  const auto qemu = NbdServer::qemu_nbd({"-f", "qcow2", folder / "copy"});
  REQUIRE_OK(verify_nbd(*digests, qemu.uri()));
  const auto plain = NbdServer::nbdkit({"--no-sr", "file", folder / "raw"});
  REQUIRE_OK(verify_nbd(*digests, plain.uri()));
  // A server whose blocks are larger than the alignment of the disk's end.
  const auto blocky =
      NbdServer::nbdkit({"--filter=blocksize-policy", "--filter=truncate", "file", folder / "raw",
                         "blocksize-minimum=4k", "blocksize-error-policy=error", "round-up=4k"});
  const auto summary = verify_nbd(*digests, blocky.uri());
  REQUIRE_OK(summary);
  CHECK(summary->size == kDiskSize);

  // Changes one byte during the copy.
  support::patch_file(folder / "raw", 3 * kMiB + 5, std::vector<std::byte>(1, std::byte{0x9b}));
  REQUIRE_FAILS_WITH(verify_nbd(*digests, plain.uri()),
                     "differs from its source: do not use it; guest bytes 0x300000 to 0x3fffff");
}

TEST_CASE("each kind of damage is found, with its place", "[verify]") {
  const TempDirectory folder;
  const std::string copy = folder / "copy";
  const std::string raw = folder / "raw";
  support::write_file(raw, "");
  support::resize_file(raw, 8 * kMiB);
  run_ok({"qemu-io", "-f", "raw", "-c", "write -P 1 1M 128k", "-c", "write -P 2 4M 128k", raw});
  const auto compression = GENERATE(std::optional<CompressionType>(), CompressionType::kZstd);
  const auto digests = copied(raw, copy, plan(16, compression));
  REQUIRE_OK(verify_file(*digests, copy));
  const auto expect = [&](const std::string& command, const std::string& where) {
    CAPTURE(command);
    run_ok({"qemu-io", "-f", "qcow2", "-c", command, copy});
    const auto summary = verify_file(*digests, copy);
    REQUIRE_FALSE(summary.has_value());
    CHECK(summary.error().message() ==
          copy + ": differs from its source: do not use it; guest bytes " + where);
    CHECK(summary.error().errnum() == EIO);
  };
  SECTION("a changed byte") {
    expect("write -P 3 1179647 1", "0x100000 to 0x1fffff");
  }
  SECTION("lost data") {
    expect("write -z 4M 64k", "0x400000 to 0x4fffff");
  }
  SECTION("data at a wrong offset") {
    expect("write -P 1 4M 64k", "0x400000 to 0x4fffff");
  }
  SECTION("data instead of zeros") {
    expect("write -P 1 8388607 1", "0x700000 to 0x7fffff");
  }
  SECTION("damage in many places") {
    expect("write -P 9 0 3M", "0x0 to 0x2fffff");
    expect("write -P 9 7M 1M", "0x0 to 0x2fffff, 0x700000 to 0x7fffff");
  }
}

TEST_CASE("long lists of damage are shortened", "[verify]") {
  const TempDirectory folder;
  support::write_file(folder / "raw", "");
  support::resize_file(folder / "raw", 12 * kMiB);
  const auto digests = copied(folder / "raw", folder / "copy", plan(16));
  for (int i = 0; i < 6; ++i)
    run_ok({"qemu-io", "-f", "qcow2", "-c", fmt::format("write {}M 512", 2 * i), folder / "copy"});
  REQUIRE_FAILS_WITH(verify_file(*digests, folder / "copy"),
                     "0x0 to 0xfffff, 0x200000 to 0x2fffff, 0x400000 to 0x4fffff, "
                     "0x600000 to 0x6fffff and 2 more ranges");
}

TEST_CASE("a copy that cannot be read causes a separate error", "[verify]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 1, kDiskSize);
  const auto digests = copied(folder / "raw", folder / "copy", plan(16, CompressionType::kZstd));
  // After the metadata of the first cluster comes the first stream, or the first data.
  const auto bytes = support::read_file(folder / "copy");
  const std::vector<std::byte> junk(bytes.size() - (192 << 10), std::byte{0x55});
  support::patch_file(folder / "copy", 64 << 10, std::span(junk).first(128 << 10));
  const auto summary = verify_file(*digests, folder / "copy");
  CHECK_FALSE(summary.has_value());
}

TEST_CASE("a larger copy is compared to the end of the source, a smaller one is refused",
          "[verify]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 2, kDiskSize);
  const auto digests = copied(folder / "raw", folder / "copy", plan(16));
  support::resize_file(folder / "raw", kDiskSize + 3 * kMiB);
  // Changes data past the end of the source, in its last cluster.
  support::patch_file(folder / "raw", kDiskSize, std::vector<std::byte>(kMiB, std::byte{7}));
  const auto summary = verify_file(*digests, folder / "raw", qcow2::Format::kRaw);
  REQUIRE_OK(summary);
  CHECK(summary->size == kDiskSize);
  support::resize_file(folder / "raw", kDiskSize - 512);
  REQUIRE_FAILS_WITH(
      verify_file(*digests, folder / "raw", qcow2::Format::kRaw),
      fmt::format("raw: has {} bytes, and its source had {}", kDiskSize - 512, kDiskSize));
}

TEST_CASE("a huge empty disk is verified at once", "[verify]") {
  const TempDirectory folder;
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", folder / "disk", "16T"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -P 5 9T 64k", folder / "disk"});
  const auto digests = copied(folder / "disk", folder / "copy", plan(16));
  const auto summary = verify_file(*digests, folder / "copy");
  REQUIRE_OK(summary);
  CHECK(summary->size == uint64_t{16} << 40);
  CHECK(summary->read == 64 << 10);
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -P 6 9T 512", folder / "copy"});
  REQUIRE_FAILS_WITH(verify_file(*digests, folder / "copy"),
                     "guest bytes 0x90000000000 to 0x90003ffffff");
}

TEST_CASE("a compressed cluster that is passed through must be valid", "[verify]") {
  const TempDirectory folder;
  support::write_file(folder / "raw", std::string(64 << 10, 'x') + std::string(64 << 10, 'y'));
  make_qcow2(folder / "raw", folder / "src", {"-c", "-o", "compression_type=zstd"});
  auto source = LocalSource::open(folder / "src", {});
  REQUIRE_OK(source);
  // Changes the middle of the first stream's only block. The frame's header stays.
  std::vector<qcow2::Extent> extents;
  REQUIRE_OK((*source)->map(GuestOffset(0), 64 << 10, extents));
  REQUIRE(extents.front().kind == qcow2::ExtentKind::kCompressed);
  source->reset();
  const auto before = support::read_file(folder / "src");
  const uint64_t stream = extents.front().host.value();
  bool refused = false;
  // Tries several bytes: some bytes of a stream do not matter to its decoder.
  for (uint64_t at = stream + 5; at < stream + 16 && !refused; ++at) {
    support::write_file(folder / "src", before);
    support::patch_file(folder / "src", at, std::vector<std::byte>(1, ~before[at]));
    auto damaged = LocalSource::open(folder / "src", {});
    REQUIRE_OK(damaged);
    Digests digests((*damaged)->size(), 64 << 10);
    const auto done =
        copy_with_digests(**damaged, folder / "copy", digests, plan(16, CompressionType::kZstd));
    refused = !done && done.error().message().find("compressed cluster of guest offset 0x0") !=
                           std::string::npos;
  }
  CHECK(refused);
}

TEST_CASE("a copy from a pipe of unknown length is verified", "[verify]") {
  const uint64_t seed = support::base_seed();
  INFO("VIRT_COMPACT_SEED=" << seed);
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", seed, kDiskSize);
  const int fd = ::open((folder / "raw").c_str(), O_RDONLY | O_CLOEXEC);
  REQUIRE(fd >= 0);
  const Cancel cancel;
  Stop stop(cancel);
  auto stream = copy::StreamSource::open(fd, "stream", true, stop);
  REQUIRE_OK(stream);
  const auto options = plan(16);
  Digests digests(Digests::kUnknown, options.worker.geometry.cluster_size());
  copy::NullSink null(options.worker.geometry);
  DigestSink sink(null, digests, {});
  PhaseWatcher progress;
  Pipeline pipeline(**stream, sink, progress, stop, options);
  REQUIRE_OK(pipeline.run());
  ::close(fd);
  REQUIRE((*stream)->size() == kDiskSize);
  digests.end_at(kDiskSize);
  REQUIRE_OK(verify_file(digests, folder / "raw", qcow2::Format::kRaw));
  run_ok({"qemu-io", "-f", "raw", "-c", "write -P 77 1M 1", folder / "raw"});
  REQUIRE_FAILS_WITH(verify_file(digests, folder / "raw", qcow2::Format::kRaw),
                     fmt::format("guest bytes 0x0 to {:#x}", kDiskSize - 1));
}

TEST_CASE("verification of a copy with a backing file reads only the copy's own data", "[verify]") {
  const TempDirectory folder;
  const auto make = [&](const std::string& name, const std::vector<std::string>& commands) {
    run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", folder / "base", "-F", "raw",
            folder / name});
    for (const std::string& command : commands)
      run_ok({"qemu-io", "-f", "qcow2", "-c", command, folder / name});
  };
  support::write_file(folder / "base", std::string(4 * kMiB, 'b'));
  make("source", {"write -P 1 1M 100k", "write -z 3M 128k"});
  make("good", {"write -z 3M 128k", "write -P 1 1M 100k"});
  make("zeros lost", {"write -P 1 1M 100k"});
  make("data lost", {"write -z 3M 128k"});
  make("more zeros", {"write -P 1 1M 100k", "write -z 2M 64k", "write -z 3M 128k"});
  auto options = plan(16);
  options.explicit_zeros = true;
  const auto open = [&](const std::string& name) {
    auto source = LocalSource::open(folder / name, {});
    REQUIRE_OK(source);
    REQUIRE_OK((*source)->keep_backing(folder / "base", 64 << 10));
    return std::move(*source);
  };
  const auto source = open("source");
  Digests digests(source->size(), 64 << 10, Digests::Zeros::kTold);
  copy::NullSink null(options.worker.geometry);
  DigestSink sink(null, digests, {});
  PhaseWatcher progress;
  const Cancel cancel;
  Stop stop(cancel);
  Pipeline pipeline(*source, sink, progress, stop, options);
  REQUIRE_OK(pipeline.run());

  const auto verify_overlay = [&](const std::string& name) {
    const auto copy = open(name);
    return copy::verify(digests, *copy, options, progress, cancel);
  };
  REQUIRE_OK(verify_overlay("source"));
  REQUIRE_OK(verify_overlay("good"));
  REQUIRE_FAILS_WITH(verify_overlay("zeros lost"), "guest bytes 0x300000 to 0x3fffff");
  REQUIRE_FAILS_WITH(verify_overlay("data lost"), "guest bytes 0x100000 to 0x1fffff");
  REQUIRE_FAILS_WITH(verify_overlay("more zeros"), "guest bytes 0x200000 to 0x2fffff");
}

TEST_CASE("verification can be cancelled", "[verify]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 3, kDiskSize);
  const auto digests = copied(folder / "raw", folder / "copy", plan(16));
  auto source = LocalSource::open(folder / "copy", {});
  REQUIRE_OK(source);
  PhaseWatcher progress;
  Cancel cancel;
  progress.on_update = [&] { cancel.request(); };
  const auto summary = copy::verify(*digests, **source, plan(16), progress, cancel);
  REQUIRE_FALSE(summary.has_value());
  CHECK(summary.error().kind() == Error::Kind::kCancelled);
  CHECK(progress.last < progress.total);
}

TEST_CASE("verification reads from the disk, not from the page cache", "[verify]") {
  const TempDirectory folder;
  constexpr long kTmpfs = 0x01021994;
  struct statfs status {};
  REQUIRE(::statfs(folder.path().c_str(), &status) == 0);
  if (status.f_type == kTmpfs) {
    WARN("skipped: " << folder.path() << " is in memory; set TMPDIR to a folder on a disk");
    return;
  }
  constexpr size_t kSize = 4 << 20;
  support::write_file(folder / "file", std::string(kSize, 'x'));
  run_ok({"sync", folder / "file"});
  REQUIRE(pages_in_memory(folder / "file", kSize) > 0);
  copy::forget_cached(folder / "file");
  CHECK(pages_in_memory(folder / "file", kSize) == 0);
  copy::forget_cached(folder / "no such file");
}
