// Every codec and level in an image: QEMU reads it, and threads change nothing.
#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "copy/copier.h"
#include "qcow2/format/codec.h"
#include "tests/catch.h"
#include "tests/interop/qemu.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

namespace vc::interop {

using copy::CopyOptions;
using qcow2::CompressionType;
using support::TempDirectory;

namespace {

constexpr size_t kPart = 320 << 10;

class Silent final : public Progress {
 public:
  void update(uint64_t /*done*/, uint64_t /*total*/) override {}
};

// Writes a program (this one), random data, zeros, both alternating, and repeated random data.
void write_disk(const std::string& path) {
  std::vector<char> program(kPart);
  std::ifstream("/proc/self/exe", std::ios::binary).read(program.data(), kPart);
  std::mt19937 random(1);
  std::vector<char> noise(kPart);
  for (char& it : noise) it = static_cast<char>(random() & 0xff);
  std::vector<char> mixed;
  for (size_t at = 0; at < kPart; at += 4096) {
    const auto& from = at % 8192 == 0 ? program : noise;
    mixed.insert(mixed.end(), from.begin() + static_cast<std::ptrdiff_t>(at),
                 from.begin() + static_cast<std::ptrdiff_t>(at + 4096));
  }
  std::ofstream out(path, std::ios::binary);
  for (const auto& part : {program, noise, std::vector<char>(kPart), mixed, noise, noise})
    out.write(part.data(), static_cast<std::streamsize>(part.size()));
  out.flush();
  REQUIRE(out.good());
}

copy::CopySummary copy_or_fail(const CopyOptions& options) {
  Silent progress;
  const Cancel cancel;
  const auto summary = copy::copy(options, progress, cancel);
  INFO((summary ? "" : summary.error().message()));
  REQUIRE(summary);
  return *summary;
}

}  // namespace

TEST_CASE("images of every codec and level", "[copier]") {
  const auto type = GENERATE(CompressionType::kZstd, CompressionType::kDeflate);
  const unsigned cluster_bits = GENERATE(12u, 16u, 20u);
  const TempDirectory folder;
  const std::string raw = folder / "disk.raw";
  write_disk(raw);
  const auto length = static_cast<int64_t>(std::filesystem::file_size(raw));
  CopyOptions options;
  options.source = raw;
  options.source_format = qcow2::Format::kRaw;
  options.image.cluster_bits = cluster_bits;
  options.compression.type = type;
  options.overwrite = true;
  const qcow2::CodecLevels levels = qcow2::codec_levels(type);
  for (int level = 0; level <= levels.highest; ++level) {
    INFO(fmt::format("{} level {}, clusters of {}", to_string(type), level, 1u << cluster_bits));
    options.compression.level = level;
    options.threads = 1;
    options.destination = folder / "one";
    const copy::CopySummary summary = copy_or_fail(options);
    CHECK(summary.compressed_clusters > 0);
    // At 1 MiB, no cluster has only random data, and the tables are larger than the disk.
    if (cluster_bits < 20) {
      CHECK(summary.data_clusters > 0);
      CHECK(static_cast<int64_t>(std::filesystem::file_size(options.destination)) < length);
    }
    CHECK(check_complaint(options.destination) == "");
    CHECK(compare_complaint(options.destination, "qcow2", raw) == "");

    options.threads = 3;
    options.destination = folder / "three";
    copy_or_fail(options);
    CHECK_FALSE(support::first_difference(folder / "one", folder / "three"));
  }
}

}  // namespace vc::interop
