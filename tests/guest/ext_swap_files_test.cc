// Swap files of ext2, ext3 and ext4: the places of their contents, and doubtful ones.
#include <fmt/format.h>

#include "guest/filesystem/swap_files.h"
#include "tests/catch_text.h"
#include "tests/guest/droppable_files.h"
#include "tests/guest/lived_in_volume.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using guest_test::check_no_files;
using guest_test::contents_of;
using guest_test::Kind;
using guest_test::LivedInVolume;
using guest_test::read_with_files;
using guest_test::write_noise;
using guest_test::write_swap_file;
using support::TempDirectory;

namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr size_t kHeader = 64 << 10;
constexpr guest::FileKinds kSwap{false, false, false, true};

std::string debugfs(const std::string& volume, const std::string& command) {
  return support::run_ok({"debugfs", "-w", "-R", command, volume}).out;
}

std::vector<std::byte> dump(const std::string& volume, const std::string& path) {
  const TempDirectory scratch;
  debugfs(volume, "dump " + path + " " + (scratch / "file"));
  return support::read_file(scratch / "file");
}

void may_hold_anything(const Kind& kind) {
  if (const std::string why = guest_test::why_no_volume(kind); !why.empty()) {
    WARN(kind.name << ": not tried: " << why);
    return;
  }
  const uint64_t seed = support::base_seed();
  INFO(kind.name << ", VIRT_COMPACT_SEED=" << seed);
  support::Random random(seed);
  const LivedInVolume lived_in(kind, random);
  const std::string& volume = lived_in.path();
  const TempDirectory scratch;
  write_swap_file(scratch / "swap", 20 * kMiB);
  write_swap_file(scratch / "small", 2 * kMiB);
  write_noise(scratch / "noise", kMiB);
  support::write_file(scratch / "fstab",
                      std::string("# a comment\n/dev/sda2 none swap sw 0 0\n"
                                  "/data/extra none swap sw 0 0\n/nothing none swap sw 0 0\n"));
  debugfs(volume, "write " + scratch / "swap" + " swapfile");
  // A file with the name of a swap file, but other content.
  debugfs(volume, "write " + scratch / "noise" + " swap.img");
  debugfs(volume, "mkdir etc");
  debugfs(volume, "write " + scratch / "fstab" + " etc/fstab");
  debugfs(volume, "mkdir data");
  debugfs(volume, "write " + scratch / "small" + " data/extra");

  const auto found = read_with_files(volume, kSwap);
  INFO(found.no_files);
  REQUIRE(found.files.size() == 2);
  CHECK(found.files[0].path == "/data/extra");
  CHECK(found.files[1].path == "/swapfile");
  CHECK(found.files[1].size == 20 * kMiB);
  CHECK(found.files[1].on_disks.at(0).total() == 20 * kMiB - kHeader);
  const std::string copy = lived_in.copy_with_garbage(contents_of(found));
  CHECK(lived_in.complaint(copy) == "");
  auto expected = support::read_file(scratch / "swap");
  std::fill(expected.begin() + kHeader, expected.end(), std::byte{0xA5});
  CHECK((dump(copy, "swapfile") == expected));
  CHECK((dump(copy, "swap.img") == support::read_file(scratch / "noise")));
  CHECK((dump(copy, "etc/fstab") == support::read_file(scratch / "fstab")));
  CHECK(read_with_files(volume, {true, true, true, false}).files.empty());
}

Kind ext(const std::string& name, const std::vector<std::string>& options) {
  Kind kind{name, 120 * kMiB, {"mke2fs", "-q", "-F"}, {"e2fsck", "-f", "-n"}, "ext4"};
  kind.make.insert(kind.make.end(), options.begin(), options.end());
  return kind;
}

// A volume with only a swap file.
class SwapFile {
 public:
  explicit SwapFile(const std::vector<std::string>& options) : path_(folder_ / "volume") {
    std::vector<std::string> command{"mke2fs", "-q", "-F"};
    command.insert(command.end(), options.begin(), options.end());
    command.insert(command.end(), {path_, "32M"});
    support::run_ok(command);
    write_swap_file(folder_ / "swap", 2 * kMiB);
    debugfs(path_, "write " + folder_ / "swap" + " swapfile");
    const auto volume = read_with_files(path_, kSwap);
    INFO(volume.no_files);
    REQUIRE(volume.files.size() == 1);
  }

  const std::string& path() const { return path_; }
  uint64_t block(unsigned number) const {
    return std::stoull(debugfs(path_, fmt::format("bmap swapfile {}", number)));
  }
  void is_doubted(const std::string& why) const { check_no_files(path_, kSwap, why); }

 private:
  const TempDirectory folder_;
  const std::string path_;
};

}  // namespace

TEST_CASE("the content of swap files can be overwritten, and no other file changes",
          "[truth][ext][swap]") {
  may_hold_anything(ext("ext4", {"-t", "ext4"}));
  may_hold_anything(ext("ext4 with blocks of 1 KiB", {"-t", "ext4", "-b", "1024"}));
  may_hold_anything(ext("ext3", {"-t", "ext3", "-b", "4096"}));
  may_hold_anything(ext("ext2 with blocks of 1 KiB", {"-t", "ext2", "-b", "1024"}));
}

TEST_CASE("a doubtful swap file is not dropped", "[ext][swap]") {
  SECTION("a saved session") {
    const SwapFile file({"-t", "ext4", "-b", "4096"});
    const uint64_t end = (file.block(0) + 1) * 4096;
    support::patch_file(file.path(), end - 10, std::as_bytes(std::span("S1SUSPEND\0", 10)));
    file.is_doubted("holds a saved session");
  }
  SECTION("a wrong checksum") {
    const SwapFile file({"-t", "ext4", "-b", "4096"});
    // Changes the inode's time of change.
    const std::string text = debugfs(file.path(), "imap swapfile");
    const size_t at_block = text.find("at block ");
    const size_t at_offset = text.find("offset ");
    REQUIRE(at_block != std::string::npos);
    REQUIRE(at_offset != std::string::npos);
    const uint64_t block = std::stoull(text.substr(at_block + 9));
    const uint64_t offset = std::stoull(text.substr(at_offset + 7), nullptr, 16);
    const uint64_t at = block * 4096 + offset + 0x0C;
    const std::byte changed = support::RawFile(file.path()).read(at, 1)[0] ^ std::byte{1};
    support::patch_file(file.path(), at, std::span(&changed, 1));
    file.is_doubted("the checksum of its inode");
  }
  SECTION("an encrypted file") {
    const SwapFile file({"-t", "ext4", "-b", "4096"});
    debugfs(file.path(), "sif swapfile flags 0x80800");
    file.is_doubted("is encrypted, or stored in another way");
  }
  SECTION("a symbolic link on the way") {
    const SwapFile file({"-t", "ext4", "-b", "4096"});
    debugfs(file.path(), "symlink swap /elsewhere");
    file.is_doubted("a symbolic link leads to a swap file");
  }
  SECTION("a file with two names") {
    const SwapFile file({"-t", "ext4", "-b", "4096"});
    debugfs(file.path(), "ln swapfile swap.img");
    file.is_doubted("share a block");
  }
  SECTION("blocks of another structure") {
    const SwapFile file({"-t", "ext2", "-b", "4096", "-O", "none"});
    // The block of the map that follows the 12 block numbers in the inode.
    const auto text = debugfs(file.path(), "stat swapfile");
    const size_t at = text.find("(IND):");
    REQUIRE(at != std::string::npos);
    const uint64_t map = std::stoull(text.substr(at + 6)) * 4096;
    const auto point = [&](uint32_t block) {
      support::patch_file(file.path(), map + 4 * (20 - 12), std::as_bytes(std::span(&block, 1)));
    };
    const auto original = static_cast<uint32_t>(file.block(20));
    point(static_cast<uint32_t>(file.block(25)));
    file.is_doubted("twice");
    point(3);
    file.is_doubted("metadata");
    point(static_cast<uint32_t>(map / 4096));
    file.is_doubted("metadata");
    point(8000);
    file.is_doubted("free");
    point(0x7FFFFFFF);
    file.is_doubted("is damaged");
    point(original);
    CHECK(read_with_files(file.path(), kSwap).files.size() == 1);
  }
}

TEST_CASE("unwritten blocks of ext4 are not taken for a swap header", "[ext][swap]") {
  const SwapFile file({"-t", "ext4", "-b", "4096"});
  const TempDirectory scratch;
  support::write_file(scratch / "empty", std::string());
  debugfs(file.path(), "write " + scratch / "empty" + " swap.img");
  debugfs(file.path(), "fallocate swap.img 0 511");
  debugfs(file.path(), "sif swap.img size 2097152");
  const uint64_t at = std::stoull(debugfs(file.path(), "bmap swap.img 0")) * 4096;
  // Left over from another swap file.
  write_swap_file(scratch / "swap", 2 * kMiB);
  support::patch_file(file.path(), at, support::RawFile(scratch / "swap").read(0, kHeader));
  const auto found = read_with_files(file.path(), kSwap);
  INFO(found.no_files);
  REQUIRE(found.files.size() == 1);
  CHECK(found.files[0].path == "/swapfile");
}

TEST_CASE("the search for swap files of an fstab stops at Linux's limit", "[swap]") {
  std::string fstab;
  for (unsigned i = 0; i < 5000; ++i) fstab += fmt::format("/swap{} none swap\n", i);
  CHECK(guest::swap_file_paths(fstab).size() == 4 + 32);
}

TEST_CASE("swap files are found among other entries of an fstab", "[swap]") {
  const auto paths = guest::swap_file_paths(
      "UUID=1 / ext4 defaults 0 1\n  /a none swap sw\n/swapfile none swap sw 0 0\n/b /b ext4\n"
      "/dev/sda3 none swap\nLABEL=x none swap\n#/c none swap\n/d none");
  CHECK(paths ==
        std::vector<std::string>{"/a", "/swap.img", "/swap/swapfile", "/swapfile", "/var/swap"});
}
