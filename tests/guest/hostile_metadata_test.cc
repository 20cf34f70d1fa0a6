// Metadata that were made to mislead, or to keep a reader busy.
#include <cstring>

#include "tests/catch_text.h"
#include "tests/guest/image_file.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using guest::Ranges;
using guest::Reading;
using support::TempDirectory;

namespace {

constexpr uint64_t kMiB = 1 << 20;

class Volume {
 public:
  Volume(uint64_t size, const std::vector<std::string>& make) : path_(folder_ / "volume") {
    support::write_file(path_, std::string());
    support::resize_file(path_, size);
    auto command = make;
    command.push_back(path_);
    support::run_ok(command);
    REQUIRE(read().verdict == Reading::Verdict::kFree);
  }

  std::vector<std::byte> bytes() const { return support::read_file(path_); }
  void put(uint64_t at, const std::string& bytes) const {
    support::patch_file(path_, at, std::as_bytes(std::span(bytes)));
  }
  guest::Volume read() const {
    auto inspection = guest_test::inspect_files({path_});
    REQUIRE(inspection.volumes.size() == 1);
    return inspection.volumes.front();
  }
  void check_doubt(const std::string& why) const {
    const auto now = read();
    INFO(now.why);
    CHECK(now.verdict == Reading::Verdict::kDoubt);
    CHECK(now.free == 0);
    CHECK_THAT(now.why, Catch::Contains(why));
  }

 private:
  const TempDirectory folder_;
  const std::string path_;
};

uint32_t be32(const std::vector<std::byte>& bytes, uint64_t at) {
  uint32_t value = 0;
  std::memcpy(&value, bytes.data() + at, 4);
  return __builtin_bswap32(value);
}

std::string le(uint64_t value, size_t size) {
  std::string bytes(size, '\0');
  std::memcpy(bytes.data(), &value, size);
  return bytes;
}

// A restart page of NTFS's log, of a volume that was shut down or is in use.
std::string restart_page(uint64_t lsn, bool clean) {
  std::string page(4096, '\0');
  page.replace(0, 4, "RSTR");
  page.replace(0x10, 4, le(4096, 4));
  page.replace(0x14, 4, le(4096, 4));
  page.replace(0x18, 2, le(0x30, 2));
  page.replace(0x1A, 2, le(1, 2));
  page.replace(0x1C, 2, le(1, 2));
  page.replace(0x30, 8, le(lsn, 8));
  page.replace(0x3C, 2, le(clean ? 0xFFFF : 0, 2));
  return page;
}

}  // namespace

TEST_CASE("block groups that share a bitmap are a doubt", "[hostile]") {
  const Volume volume(64 * kMiB, {"mke2fs", "-q", "-F", "-t", "ext2", "-b", "1024", "-O", "none"});
  // The descriptors are in the block after the superblock, 32 bytes each.
  const auto bytes = volume.bytes();
  const auto* const text = reinterpret_cast<const char*>(bytes.data());
  volume.put(2048 + 2 * 32, std::string(text + 2048 + 32, 4));
  volume.check_doubt("share a bitmap");
}

TEST_CASE("a free space tree of XFS that calls an AG header free is a doubt", "[hostile]") {
  const Volume volume(320 * kMiB, {"mkfs.xfs", "-q", "-f", "-m", "crc=0,finobt=0"});
  const auto bytes = volume.bytes();
  const uint64_t block_size = be32(bytes, 4);
  const uint64_t root = be32(bytes, 512 + 0x10) * block_size;
  REQUIRE(be32(bytes, root) == 0x41425442);  // ABTB
  volume.put(root + 16, std::string(4, '\0'));
  volume.check_doubt("calls metadata free");
}

TEST_CASE("of two restart pages of one age both must be clean", "[hostile]") {
  const Volume volume(64 * kMiB, {"mkntfs", "-q", "-Q", "-F"});
  const auto bytes = volume.bytes();
  // mkntfs fills the log with ones.
  uint64_t log = 0;
  const std::vector<std::byte> ones(4096, std::byte{0xFF});
  while (std::memcmp(bytes.data() + log, ones.data(), ones.size()) != 0) log += 4096;
  volume.put(log, restart_page(5, true));
  volume.put(log + 4096, restart_page(5, true));
  CHECK(volume.read().verdict == Reading::Verdict::kFree);
  volume.put(log + 4096, restart_page(5, false));
  volume.check_doubt("replayed");
  volume.put(log, restart_page(6, true));
  CHECK(volume.read().verdict == Reading::Verdict::kFree);
}

TEST_CASE("ranges without end are not collected", "[hostile]") {
  Ranges::Builder builder;
  for (uint64_t i = 0; i < Ranges::Builder::kMost; ++i) builder.add(2 * i, 2 * i + 1);
  // The last one can still grow.
  builder.add(2 * Ranges::Builder::kMost - 1, 2 * Ranges::Builder::kMost);
  CHECK_THROWS_AS(builder.add(UINT64_MAX - 1, UINT64_MAX), guest::TooManyRanges);
}
