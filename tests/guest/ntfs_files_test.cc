// Files that Windows creates again: the places of their contents, and doubtful ones.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

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
using support::TempDirectory;

namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr size_t kRecord = 1024;
constexpr guest::FileKinds kAll{true, true, true, true};

void add_file(const std::string& volume, const std::string& name, uint64_t size) {
  const TempDirectory scratch;
  write_noise(scratch / "file", size);
  support::run_ok({"ntfscp", "-q", volume, scratch / "file", name});
}

uint64_t largest_hole(const std::string& path) {
  const guest::Volume volume = read_with_files(path, kAll);
  uint64_t largest = 0;
  for (const guest::Range& it : volume.on_disks.at(0).all())
    largest = std::max(largest, it.length());
  return largest;
}

std::string contents(const std::string& volume, const std::string& name) {
  return support::run_ok({"ntfscat", volume, name}).out;
}

// A volume with a page file, whose record tests change.
class PageFile {
 public:
  PageFile() : path_(folder_ / "volume") {
    support::write_file(path_, std::string());
    support::resize_file(path_, 64 * kMiB);
    support::run_ok({"mkntfs", "-q", "-Q", "-F", path_});
    add_file(path_, "pagefile.sys", 4 * kMiB);
    find_record();
    const auto volume = read_with_files(path_, kAll);
    INFO(volume.no_files);
    REQUIRE(volume.files.size() == 1);
    CHECK(volume.files[0].path == "/pagefile.sys");
    CHECK(volume.files[0].size == 4 * kMiB);
    CHECK(volume.files[0].on_disks.at(0).total() == 4 * kMiB);
  }

  const std::string& path() const { return path_; }
  // Returns the offset of a field in the record, or in its attribute of a type.
  uint64_t at(size_t offset) const { return record_ + offset; }
  uint64_t at(uint32_t type, size_t offset) const {
    const auto record = support::RawFile(path_).read(record_, kRecord);
    const auto number = [&](size_t where, size_t length) {
      uint32_t value = 0;
      std::memcpy(&value, record.data() + where, length);
      return value;
    };
    for (size_t here = number(0x14, 2); number(here, 4) != 0xFFFFFFFF; here += number(here + 4, 4))
      if (number(here, 4) == type) return record_ + here + offset;
    throw std::runtime_error("no such attribute");
  }
  void put(uint64_t where, std::string bytes) const {
    support::patch_file(path_, where, std::as_bytes(std::span(bytes)));
  }
  void is_doubted(const std::string& why) const { check_no_files(path_, kAll, why); }

 private:
  void find_record() {
    const support::RawFile file(path_);
    uint64_t cluster = 0;
    file.read(0x30, std::as_writable_bytes(std::span(&cluster, 1)));
    const std::string_view name("p\0a\0g\0e\0f\0i\0l\0e\0", 16);
    for (record_ = cluster * 4096 + 24 * kRecord;; record_ += kRecord) {
      const auto bytes = file.read(record_, kRecord);
      const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      if (text.starts_with("FILE") && text.find(name) != std::string_view::npos) return;
    }
  }

  const TempDirectory folder_;
  const std::string path_;
  uint64_t record_ = 0;
};

}  // namespace

TEST_CASE("files that Windows creates again can be overwritten, and no other file changes",
          "[truth][ntfs]") {
  const Kind kind{"NTFS", 160 * kMiB, {"mkntfs", "-q", "-Q", "-F"}, {"ntfsfix", "-n"}, "ntfs"};
  if (const std::string why = guest_test::why_no_volume(kind); !why.empty()) {
    WARN("not tried: " << why);
    return;
  }
  const uint64_t seed = support::base_seed();
  INFO("VIRT_COMPACT_SEED=" << seed);
  support::Random random(seed);
  const LivedInVolume lived_in(kind, random);
  add_file(lived_in.path(), "SWAPFILE.SYS", 3 * kMiB + 5);
  add_file(lived_in.path(), "not-a-pagefile.sys", kMiB);
  // Too large for the gaps between other files, so that it is fragmented.
  const uint64_t size = largest_hole(lived_in.path()) + kMiB;
  add_file(lived_in.path(), "pagefile.sys", size);
  const std::string other = contents(lived_in.path(), "not-a-pagefile.sys");

  const auto volume = read_with_files(lived_in.path(), kAll);
  INFO(volume.no_files);
  REQUIRE(volume.files.size() == 2);
  CHECK(volume.files[0].path == "/pagefile.sys");
  CHECK(volume.files[0].on_disks.at(0).total() == size);
  CHECK(volume.files[0].on_disks.at(0).all().size() > 1);
  CHECK(volume.files[1].path == "/swapfile.sys");
  CHECK(volume.files[1].size == 3 * kMiB + 5);
  const std::string copy = lived_in.copy_with_garbage(contents_of(volume));
  CHECK(lived_in.complaint(copy) == "");
  CHECK(contents(copy, "not-a-pagefile.sys") == other);
  // All of their contents, and nothing else.
  CHECK((contents(copy, "pagefile.sys") == std::string(size, '\xA5')));
  CHECK((contents(copy, "SWAPFILE.SYS") == std::string(3 * kMiB + 5, '\xA5')));

  // Finds only the requested kinds.
  CHECK(read_with_files(lived_in.path(), {}).files.empty());
  CHECK(read_with_files(lived_in.path(), {false, true, true, true}).files.size() == 1);
}

TEST_CASE("a page file that is stored in an unusual way is not dropped", "[ntfs]") {
  const PageFile file;
  SECTION("compressed") {
    file.put(file.at(0x80, 12), std::string("\x01\x00", 2));
    file.is_doubted("sparse, compressed or encrypted");
  }
  SECTION("encrypted") {
    file.put(file.at(0x80, 12), std::string("\x00\x40", 2));
    file.is_doubted("sparse, compressed or encrypted");
  }
  SECTION("a reparse point") {
    file.put(file.at(0x10, 0x18 + 0x21), "\x04");
    file.is_doubted("sparse, compressed or encrypted");
  }
  SECTION("a list of attributes") {
    file.put(file.at(0x30, 0), std::string("\x20\x00", 2));
    file.is_doubted("the attributes of a record are damaged");
  }
  SECTION("another file's record") {
    file.put(file.at(0x10), std::string("\x77\x00", 2));
    file.is_doubted("does not match its directory entry");
  }
  SECTION("another name") {
    file.put(file.at(0x30, 0x18 + 0x42), "q");
    file.is_doubted("a second name");
  }
  SECTION("a part of another file") {
    file.put(file.at(0x20), "\x05");
    file.is_doubted("does not match its directory entry");
  }
  SECTION("longer than its clusters") {
    file.put(file.at(0x80, 0x32), "\x50");
    file.is_doubted("longer than its allocated size");
  }
  SECTION("clusters that are free") {
    // A run has a byte with lengths, one or two bytes of length, and the place. Moves the first run
    // past the last one.
    const auto runs = support::RawFile(file.path()).read(file.at(0x80, 0x40), 8);
    const auto sizes = static_cast<unsigned>(runs[0]);
    const size_t place = 1 + (sizes & 15);
    const auto old = static_cast<unsigned>(runs[place]);
    file.put(file.at(0x80, 0x40 + place), std::string(1, static_cast<char>(old ^ 0x80)));
    file.is_doubted("free");
  }
}
