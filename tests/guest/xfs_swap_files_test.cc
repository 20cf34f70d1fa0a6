// Swap files of XFS: the places of their contents, and doubtful ones.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <set>
#include <stdexcept>

#include "tests/catch_text.h"
#include "tests/e2e/served_filesystem.h"
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
using guest_test::noise;
using guest_test::read_with_files;
using guest_test::write_noise;
using guest_test::write_swap_file;
using support::run_ok;
using support::TempDirectory;
using test::Mount;

namespace fs = std::filesystem;

namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kVolume = 320 * kMiB;
constexpr size_t kHeader = 64 << 10;
constexpr guest::FileKinds kSwap{false, false, false, true};

Mount mount(const std::string& volume) {
  return Mount("xfs", volume, "loop,nouuid");
}

Kind xfs(const std::string& name, const std::vector<std::string>& options) {
  Kind kind{name, kVolume, {"mkfs.xfs", "-q", "-f"}, {"xfs_repair", "-n", "-f"}, "xfs", "nouuid"};
  kind.make.insert(kind.make.end(), options.begin(), options.end());
  return kind;
}

bool is_possible() {
  const std::string why = guest_test::why_no_volume(xfs("xfs", {}));
  if (!why.empty()) WARN("not tried: " << why);
  return why.empty();
}

void write_at(int fd, const std::string& bytes, uint64_t at) {
  if (::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(at)) !=
      static_cast<ssize_t>(bytes.size()))
    throw std::runtime_error("pwrite");
}

// Writes every second piece first, so that each piece becomes an extent of its own.
void write_in_pieces(const std::string& path, uint64_t size, uint64_t piece) {
  const std::string bytes = noise(size);
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT, 0600);
  if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(size)) != 0) throw std::runtime_error(path);
  for (const uint64_t first : {piece, uint64_t{0}}) {
    for (uint64_t at = first; at < size; at += 2 * piece) write_at(fd, bytes.substr(at, piece), at);
    ::fsync(fd);
  }
  ::close(fd);
}

// Returns the number of extents, as filefrag(8) counts them.
size_t extents_of(const std::string& path) {
  const std::string told = run_ok({"filefrag", path}).out;
  return std::stoul(told.substr(told.rfind(": ") + 2));
}

std::string with_garbage(const std::string& path) {
  auto bytes = support::read_file(path);
  std::fill(bytes.begin() + kHeader, bytes.end(), std::byte{0xA5});
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string text_of(const std::string& path) {
  const auto bytes = support::read_file(path);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Fills directories of each kind: in the inode, with one block, and with many blocks.
void fill_directory(const std::string& path, unsigned files) {
  fs::create_directory(path);
  for (unsigned i = 0; i < files; ++i)
    support::write_file(fmt::format("{}/a-file-with-a-rather-long-name-{:05}", path, i),
                        std::string());
}

void may_hold_anything(const Kind& kind) {
  const uint64_t seed = support::base_seed();
  INFO(kind.name << ", VIRT_COMPACT_SEED=" << seed);
  support::Random random(seed);
  const LivedInVolume lived_in(kind, random);
  std::string whole, pieces, small;
  size_t extents = 0;
  {
    const Mount mounted = mount(lived_in.path());
    write_in_pieces(mounted / "swapfile", 6 * kMiB, 4096);
    run_ok({"mkswap", "-q", mounted / "swapfile"});
    extents = extents_of(mounted / "swapfile");
    // A file with the name of a swap file, but other content.
    write_noise(mounted / "swap.img", kMiB);
    fill_directory(mounted / "swap", 20);
    write_swap_file(mounted / "swap/swapfile", 3 * kMiB);
    fill_directory(mounted / "var", 4000);
    write_swap_file(mounted / "var/swap", 2 * kMiB);
    for (unsigned i = 0; i < 4000; i += 3)
      fs::remove(mounted / fmt::format("var/a-file-with-a-rather-long-name-{:05}", i));
    fs::create_directory(mounted / "etc");
    fs::create_directory(mounted / "data");
    write_swap_file(mounted / "data/extra", kMiB);
    support::write_file(mounted / "etc/fstab", std::string("# /data/none none swap\n"
                                                           "/data/extra none swap sw 0 0\n"
                                                           "/data/missing none swap sw 0 0\n"));
    whole = with_garbage(mounted / "swap/swapfile");
    pieces = with_garbage(mounted / "swapfile");
    small = with_garbage(mounted / "data/extra");
  }
  const auto found = read_with_files(lived_in.path(), kSwap);
  INFO(found.no_files);
  REQUIRE(found.files.size() == 4);
  CHECK(found.files[0].path == "/data/extra");
  CHECK(found.files[1].path == "/swap/swapfile");
  CHECK(found.files[2].path == "/swapfile");
  CHECK(found.files[3].path == "/var/swap");
  CHECK(found.files[2].size == 6 * kMiB);
  CHECK(found.files[2].on_disks.at(0).total() == 6 * kMiB - kHeader);
  CHECK(extents > 1000);
  const std::string copy = lived_in.copy_with_garbage(contents_of(found));
  CHECK(lived_in.complaint(copy) == "");
  const Mount mounted = mount(copy);
  CHECK((text_of(mounted / "swapfile") == pieces));
  CHECK((text_of(mounted / "swap/swapfile") == whole));
  CHECK((text_of(mounted / "data/extra") == small));
  CHECK((text_of(mounted / "swap.img") == noise(kMiB)));
  CHECK(read_with_files(lived_in.path(), {true, true, true, false}).files.empty());
}

// A volume with only a swap file.
class SwapFile {
 public:
  SwapFile() : path_(folder_ / "volume") {
    support::write_file(path_, std::string());
    support::resize_file(path_, kVolume);
    run_ok({"mkfs.xfs", "-q", path_});
    {
      const Mount mounted = mount(path_);
      write_in_pieces(mounted / "swapfile", 2 * kMiB, 4096);
      run_ok({"mkswap", "-q", mounted / "swapfile"});
      inode_ = number_of(mounted / "swapfile");
    }
    const auto volume = read_with_files(path_, kSwap);
    INFO(volume.no_files);
    REQUIRE(volume.files.size() == 1);
  }

  const std::string& path() const { return path_; }
  // Changes a field of the inode, and updates the checksum.
  void write(const std::string& field, const std::string& value) const {
    run_ok({"xfs_db", "-x", "-c", fmt::format("inode {}", inode_), "-c",
            fmt::format("write -d {} {}", field, value), path_});
  }
  // Same for the first block of its map.
  void write_in_map(const std::string& field, const std::string& value) const {
    run_ok({"xfs_db", "-x", "-c", fmt::format("inode {}", inode_), "-c", "addr u3.bmbt.ptrs[1]",
            "-c", fmt::format("write -d {} {}", field, value), path_});
  }
  void is_doubted(const std::string& why) const { check_no_files(path_, kSwap, why); }

 private:
  static uint64_t number_of(const std::string& path) {
    return std::stoull(run_ok({"stat", "-c", "%i", path}).out);
  }

  const TempDirectory folder_;
  const std::string path_;
  uint64_t inode_ = 0;
};

// Version 4, which few kernels can mount, so mkfs.xfs copies the files.
class OldVolume {
 public:
  explicit OldVolume(const std::vector<std::string>& options) : path_(folder_ / "volume") {
    write_swap_file(folder_ / "swap", 2 * kMiB);
    write_noise(folder_ / "kept", kMiB);
    support::write_file(folder_ / "protofile",
                        fmt::format("/boot\n0 0\nd--755 0 0\nswap d--755 0 0\nswapfile ---600 0 0 "
                                    "{}\n$\nkept ---644 0 0 {}\n$\n",
                                    folder_ / "swap", folder_ / "kept"));
    support::write_file(path_, std::string());
    support::resize_file(path_, kVolume);
    std::vector<std::string> command{"mkfs.xfs",       "-q", "-m",
                                     "crc=0,finobt=0", "-p", folder_ / "protofile"};
    command.insert(command.end(), options.begin(), options.end());
    command.push_back(path_);
    run_ok(command);
  }

  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return folder_ / name; }

 private:
  const TempDirectory folder_;
  const std::string path_;
};

}  // namespace

TEST_CASE("the content of swap files of XFS can be overwritten, and no other file changes",
          "[truth][xfs][swap]") {
  if (!is_possible()) return;
  may_hold_anything(xfs("xfs", {}));
  may_hold_anything(xfs("xfs with blocks of 1 KiB", {"-b", "size=1024", "-m", "rmapbt=1"}));
  may_hold_anything(xfs("xfs with large directories", {"-n", "size=16384", "-i", "nrext64=1"}));
  may_hold_anything(xfs("xfs with few features", {"-m", "reflink=0,finobt=0,bigtime=0"}));
}

TEST_CASE("swap files of version 4 of XFS are found", "[xfs][swap]") {
  for (const std::vector<std::string>& options : {std::vector<std::string>{},
                                                  {"-n", "ftype=1"},
                                                  {"-b", "size=512"},
                                                  {"-l", "lazy-count=0"}}) {
    const OldVolume old(options);
    const auto volume = read_with_files(old.path(), kSwap);
    INFO(volume.no_files);
    REQUIRE(volume.files.size() == 1);
    CHECK(volume.files[0].path == "/swap/swapfile");
    CHECK(volume.files[0].size == 2 * kMiB);
    const auto expected = support::read_file(old.file("swap"));
    std::vector<std::byte> content;
    for (const auto& range : volume.files[0].on_disks.at(0).all()) {
      const auto part = support::RawFile(old.path()).read(range.begin, range.length());
      content.insert(content.end(), part.begin(), part.end());
    }
    CHECK((content == std::vector(expected.begin() + kHeader, expected.end())));
  }
}

TEST_CASE("a doubtful swap file of XFS is not dropped", "[truth][xfs][swap]") {
  if (!is_possible()) return;
  const SwapFile file;
  SECTION("a copy that shares its blocks") {
    {
      const Mount mounted = mount(file.path());
      run_ok({"cp", "--reflink=always", mounted / "swapfile", mounted / "copy"});
    }
    file.is_doubted("may share blocks");
  }
  SECTION("a file with two names") {
    {
      const Mount mounted = mount(file.path());
      run_ok({"ln", mounted / "swapfile", mounted / "swap.img"});
    }
    file.is_doubted("share a block");
  }
  SECTION("a symbolic link on the way") {
    {
      const Mount mounted = mount(file.path());
      run_ok({"ln", "-s", "/elsewhere", mounted / "swap"});
    }
    file.is_doubted("a symbolic link leads to a swap file");
  }
  SECTION("a saved session") {
    {
      const Mount mounted = mount(file.path());
      support::patch_file(mounted / "swapfile", 4096 - 10,
                          std::as_bytes(std::span("S1SUSPEND\0", 10)));
    }
    file.is_doubted("holds a saved session");
  }
  SECTION("an inode on another device") {
    file.write("core.realtime", "1");
    file.is_doubted("lies on another device");
  }
  SECTION("another number of extents") {
    file.write("core.nextents", "17");
    file.is_doubted("is damaged");
  }
  SECTION("more blocks than it counts") {
    file.write("core.nblocks", "500");
    file.is_doubted("is damaged");
  }
  SECTION("an unknown format") {
    file.write("core.format", "0");
    file.is_doubted("is damaged");
  }
  SECTION("a map of another file") {
    file.write_in_map("owner", "77");
    file.is_doubted("is damaged");
  }
  SECTION("a map that lies elsewhere") {
    file.write_in_map("bno", "8");
    file.is_doubted("is damaged");
  }
  SECTION("a map of another level") {
    file.write_in_map("level", "1");
    file.is_doubted("is damaged");
  }
  SECTION("an extent out of order") {
    file.write_in_map("recs[2].startoff", "0");
    file.is_doubted("is damaged");
  }
  SECTION("an extent outside of the volume") {
    file.write_in_map("recs[20].startblock", "0xFFFFFFFFFFFF");
    file.is_doubted("is damaged");
  }
  SECTION("an extent in the metadata") {
    file.write_in_map("recs[20].startblock", "0");
    file.is_doubted("metadata");
  }
  SECTION("an extent twice") {
    file.write_in_map("recs[20].startblock", "80000");
    file.write_in_map("recs[21].startblock", "80000");
    file.is_doubted("twice");
  }
  SECTION("an extent that is free") {
    // A block in the group after the first one.
    file.write_in_map("recs[20].startblock", "42768");
    file.is_doubted("free");
  }
}

TEST_CASE("each byte of an inode of XFS counts, and of its map and directory", "[truth][xfs]") {
  if (!is_possible()) return;
  const SwapFile file;
  const auto bytes = support::read_file(file.path());
  const std::string_view all(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  std::set<uint64_t> places;
  // Inodes have 512 bytes, and blocks of the map are multiples of that.
  for (uint64_t at = 0; at < all.size(); at += 512) {
    const bool is_inode = all.substr(at, 3) == std::string_view("IN\x81", 3);
    if (is_inode || all.substr(at, 4) == "BMA3") places.insert(at + (is_inode ? 48 : 200));
  }
  CHECK(places.size() >= 2);
  for (const uint64_t at : places) {
    CAPTURE(at);
    const std::byte old = bytes[at];
    const std::byte changed = old ^ std::byte{0x10};
    support::patch_file(file.path(), at, std::span(&changed, 1));
    file.is_doubted(all.substr(at - 48, 2) == "IN" ? "the checksum of its inode" : "is damaged");
    support::patch_file(file.path(), at, std::span(&old, 1));
  }
}

TEST_CASE("blocks of XFS that were never written are no header of swap", "[truth][xfs][swap]") {
  if (!is_possible()) return;
  const TempDirectory folder;
  const std::string volume = folder / "volume";
  support::write_file(volume, std::string());
  support::resize_file(volume, kVolume);
  run_ok({"mkfs.xfs", "-q", volume});
  uint64_t place = 0;
  {
    const Mount mounted = mount(volume);
    run_ok({"fallocate", "-l", "2M", mounted / "swapfile"});
    run_ok({"fallocate", "-l", "4M", mounted / "swap.img"});
    run_ok({"mkswap", "-q", mounted / "swap.img"});
    // "0: [0..4095]: 192..4287 …", in sectors.
    const std::string told = run_ok({"xfs_bmap", "-v", "-p", mounted / "swapfile"}).out;
    place = std::stoull(told.substr(told.find("]: ") + 2)) * 512;
  }
  // Left over from another swap file.
  write_swap_file(folder / "swap", 2 * kMiB);
  support::patch_file(volume, place, support::RawFile(folder / "swap").read(0, kHeader));
  const auto found = read_with_files(volume, kSwap);
  INFO(found.no_files);
  REQUIRE(found.files.size() == 1);
  CHECK(found.files[0].path == "/swap.img");
  CHECK(found.files[0].on_disks.at(0).total() == 4 * kMiB - kHeader);
}
