// NTFS with files so fragmented that their attributes are in several records.
#include <fmt/format.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "tests/catch_text.h"
#include "tests/guest/droppable_files.h"
#include "tests/guest/image_file.h"
#include "tests/guest/lived_in_volume.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using guest::Reading;
using guest_test::noise;
using support::run_ok;
using support::TempDirectory;

namespace fs = std::filesystem;

namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kVolume = 32 * kMiB;
constexpr uint64_t kPageFileSize = 3 * kMiB;
constexpr uint64_t kHibernationFileSize = 1 * kMiB;
constexpr uint64_t kKeptSize = 256 << 10;
constexpr uint64_t kCluster = 4096;
constexpr uint64_t kRecord = 1024;
constexpr uint32_t kFile = 0x454C4946;  // magic of a record
constexpr uint32_t kData = 0x80;
constexpr guest::FileKinds kAll{true, true, true, true};
constexpr const char* kPageFile = "pagefile.sys";
// Start of the hibernation file of a resumed session.
constexpr const char* kResumed = "wake up, said the test";

// A volume mounted with ntfs-3g.
class Mounted {
 public:
  explicit Mounted(const std::string& volume) { run_ok({"ntfs-3g", volume, folder_.path()}); }
  Mounted(const Mounted&) = delete;
  Mounted& operator=(const Mounted&) = delete;
  ~Mounted() { support::run({"umount", folder_.path()}); }

  // Returns false if there is no space left.
  bool write(const std::string& name, const std::string& bytes) const {
    std::ofstream file(folder_ / name, std::ios::binary);
    file << bytes << std::flush;
    return file.good();
  }
  void remove(const std::string& name) const { fs::remove(folder_ / name); }

 private:
  const TempDirectory folder_;
};

// A volume whose free space, page file, hibernation file and master file table are fragmented.
class Fragmented {
 public:
  Fragmented() : path_(folder_ / "volume") {
    support::write_file(path_, std::string());
    support::resize_file(path_, kVolume);
    run_ok({"mkntfs", "-q", "-Q", "-F", path_});
    const Mounted mounted(path_);
    const std::string bytes = noise(kCluster);
    unsigned files = 0;
    while (mounted.write(fmt::format("file{}", files), bytes)) ++files;
    support::Random random(1);
    std::vector<unsigned> left;
    for (unsigned i = 1; i < files; ++i)
      if (random.chance(50))
        mounted.remove(fmt::format("file{}", i));
      else
        left.push_back(i);
    mounted.write(kPageFile, noise(kPageFileSize));
    mounted.write("hiberfil.sys", kResumed + std::string(kHibernationFileSize, '\0'));
    mounted.write("kept", noise(kKeptSize));
    for (unsigned i = 0; mounted.write(fmt::format("empty{}", i), ""); ++i)
      if (i == 20000) throw std::runtime_error("the table of files does not fill the volume");
    for (const unsigned i : left)
      if (random.chance(50)) mounted.remove(fmt::format("file{}", i));
  }

  const std::string& path() const { return path_; }
  std::string copy() const {
    fs::copy_file(path_, folder_ / "copy", fs::copy_options::overwrite_existing);
    return folder_ / "copy";
  }

  // Returns the offsets of records that hold a part of the contents of the file with record
  // `first`.
  std::vector<uint64_t> further_records(uint32_t first) const {
    const uint64_t size = support::RawFile(path_).size();
    std::vector<uint64_t> found;
    for (uint64_t at = 0; at < size; at += kRecord)
      if (number(at, 4) == kFile && number(at + 0x20, 4) == first && number(at + 0x26, 2) != 0 &&
          data_of(at) != 0)
        found.push_back(at);
    return found;
  }
  uint32_t record_of(const std::string& name) const {
    const std::string told = run_ok({"ntfsinfo", "-F", name, path_}).out;
    const size_t at = told.find("Inode ");
    return static_cast<uint32_t>(std::stoul(told.substr(at + 6)));
  }
  // Returns the offset of the file's data attribute in the record at `record`. 0: none.
  uint64_t data_of(uint64_t record) const {
    uint64_t at = record + number(record + 0x14, 2);
    while (number(at, 4) < kData) at += number(at + 4, 4);
    return number(at, 4) == kData ? at : 0;
  }
  uint64_t place_of(const std::string& text) const {
    const auto bytes = support::read_file(path_);
    const std::string_view all(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return all.find(text);
  }

 private:
  uint32_t number(uint64_t at, size_t length) const {
    uint32_t value = 0;
    const support::RawFile file(path_);
    file.read(at, std::as_writable_bytes(std::span(&value, 1)).first(length));
    return value;
  }

  const TempDirectory folder_;
  const std::string path_;
};

const Fragmented* fragmented() {
  const guest_test::Kind kind{"NTFS", kVolume, {"mkntfs"}, {"ntfsfix", "-n"}, "ntfs"};
  if (const std::string why = guest_test::why_no_volume(kind); !why.empty()) {
    WARN("not tried: " << why);
    return nullptr;
  }
  static const Fragmented volume;
  return &volume;
}

guest::Volume read(const std::string& path) {
  const guest_test::ImageFile file(path, 0);
  auto inspection = guest::inspect({file.view()}, kAll);
  REQUIRE(inspection.volumes.size() == 1);
  return std::move(inspection.volumes.front());
}

void fill(const std::string& path, const guest::Ranges& ranges) {
  for (const guest::Range& range : ranges.all())
    support::patch_file(path, range.begin, std::vector<std::byte>(range.length(), std::byte{0xA5}));
}

std::string contents(const std::string& volume, const std::string& name) {
  return run_ok({"ntfscat", volume, name}).out;
}

// Changes a byte of a copy, and reads the copy.
guest::Volume read_changed(const Fragmented& volume, uint64_t at) {
  const std::string copy = volume.copy();
  const std::byte other = support::RawFile(copy).read(at, 1)[0] ^ std::byte{0x11};
  support::patch_file(copy, at, std::span(&other, 1));
  return read(copy);
}

}  // namespace

TEST_CASE("free space is found with attributes in several records", "[truth][ntfs]") {
  const Fragmented* const made = fragmented();
  if (!made) return;
  CHECK(made->further_records(0).size() > 0);
  CHECK(made->further_records(made->record_of(kPageFile)).size() > 0);
  const guest::Volume volume = read(made->path());
  INFO(volume.why << volume.no_files);
  REQUIRE(volume.verdict == Reading::Verdict::kFree);
  CHECK_THAT(run_ok({"ntfsinfo", "-m", made->path()}).out,
             Catch::Contains(fmt::format("Free Clusters: {} ", volume.free / kCluster)));
  REQUIRE(volume.files.size() == 2);
  CHECK(volume.files[0].path == "/pagefile.sys");
  CHECK(volume.files[0].size == kPageFileSize);
  CHECK(volume.files[0].on_disks.at(0).total() == kPageFileSize);
  CHECK(volume.files[0].on_disks.at(0).all().size() > 150);
  CHECK(volume.files[1].size == kHibernationFileSize + std::strlen(kResumed));

  const std::string copy = made->copy();
  fill(copy, volume.on_disks.at(0));
  for (const auto& file : volume.files) fill(copy, file.on_disks.at(0));
  CHECK(support::run({"ntfsfix", "-n", copy}).ok());
  CHECK((contents(copy, kPageFile) == std::string(kPageFileSize, '\xA5')));
  CHECK((contents(copy, "hiberfil.sys") ==
         std::string(kHibernationFileSize + std::strlen(kResumed), '\xA5')));
  CHECK(contents(copy, "kept") == noise(kKeptSize));
  CHECK(contents(copy, "file0") == noise(kCluster));
}

TEST_CASE("a saved session is detected in a fragmented file", "[truth][ntfs]") {
  const Fragmented* const made = fragmented();
  if (!made) return;
  const guest::Volume volume = read_changed(*made, made->place_of(kResumed));
  CHECK(volume.verdict == Reading::Verdict::kSuspended);
}

TEST_CASE("records that do not belong together are doubted", "[truth][ntfs]") {
  const Fragmented* const made = fragmented();
  if (!made) return;
  // Fields: sequence number of the record, reference to the file, and first cluster of the part.
  for (const uint64_t at : made->further_records(made->record_of(kPageFile)))
    for (const uint64_t changed : {at + 0x10, at + 0x20, at + 0x26, made->data_of(at) + 0x10}) {
      CAPTURE(at, changed - at);
      const guest::Volume volume = read_changed(*made, changed);
      CHECK(volume.verdict == Reading::Verdict::kFree);
      CHECK(volume.files.empty());
      CHECK_THAT(volume.no_files, Catch::Contains("the attributes of a record are damaged"));
    }
  for (const uint64_t at : made->further_records(0))
    for (const uint64_t changed : {at + 0x10, at + 0x20, at + 0x26}) {
      CAPTURE(at, changed - at);
      CHECK(read_changed(*made, changed).verdict == Reading::Verdict::kDoubt);
    }
}

TEST_CASE("damaged records of fragmented files lead to no crash", "[truth][ntfs]") {
  const Fragmented* const made = fragmented();
  if (!made) return;
  const uint64_t seed = support::base_seed();
  INFO("VIRT_COMPACT_SEED=" << seed);
  support::Random random(seed);
  const std::string copy = made->copy();
  std::vector<uint64_t> records = made->further_records(0);
  for (const uint64_t at : made->further_records(made->record_of(kPageFile))) records.push_back(at);
  records.push_back(made->place_of("FILE"));
  for (uint64_t i = 0; i < support::iterations(100); ++i) {
    const uint64_t at = random.pick(records) + random.between(0, kRecord - 4);
    const auto old = support::RawFile(copy).read(at, 4);
    std::vector<std::byte> bytes(random.between(1, 4));
    random.fill(bytes);
    support::patch_file(copy, at, bytes);
    const guest::Volume volume = read(copy);
    if (volume.verdict != Reading::Verdict::kFree) CHECK_FALSE(volume.why.empty());
    support::patch_file(copy, at, old);
  }
}
