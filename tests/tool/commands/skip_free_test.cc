// Tests copies that omit the guest's free space.
#include <algorithm>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "copy/source/local_source.h"
#include "copy/source/source_view.h"
#include "guest/inspection.h"
#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

namespace {

using Catch::Contains;
using nlohmann::json;
using support::run_ok;
using support::TempDirectory;
using tool_test::run_tool;
using Bytes = std::vector<std::byte>;
using Words = std::vector<std::string>;

constexpr uint64_t kDisk = 24 << 20;
constexpr uint64_t kStart = 1 << 20;  // of the filesystem, bytes
constexpr uint64_t kBlock = 4096;

// A disk full of data, with an ext4 filesystem in a partition. Its files use a few blocks.
class Guest {
 public:
  explicit Guest(const std::string& features = "") {
    REQUIRE(tool_test::run_script(
                "tr '\\0' x < /dev/zero | head -c \"$1\" > \"$2\" && "
                "printf 'label: dos\\nstart=2048,size=40960\\n' | sfdisk -q \"$2\" && "
                "mkdir \"$3\" && for i in $(seq 40); do head -c $((i * 3000)) /dev/urandom > "
                "\"$3/$i\"; done",
                {std::to_string(kDisk), raw(), folder_ / "files"})
                .ok());
    Words make{"mke2fs", "-q",
               "-t",     "ext4",
               "-b",     "4096",
               "-d",     folder_ / "files",
               "-E",     "nodiscard,lazy_itable_init=0,offset=" + std::to_string(kStart)};
    if (!features.empty()) make.insert(make.end(), {"-O", features});
    make.insert(make.end(), {raw(), "20M"});
    run_ok(make);
  }

  std::string raw() const { return folder_ / "raw"; }
  std::string operator/(const std::string& name) const { return folder_ / name; }
  Bytes bytes() const { return support::read_file(raw()); }

  guest::Ranges free() const {
    auto source = copy::LocalSource::open(raw(), {});
    REQUIRE(source);
    const Cancel cancel;
    return guest::inspect({std::make_shared<copy::SourceView>(**source, 0, cancel)}).free_on(0);
  }

  // Returns the disk of an image, as QEMU reads it.
  Bytes disk_of(const std::string& image) const {
    const std::string out = folder_ / "out.raw";
    run_ok({"qemu-img", "convert", "-O", "raw", image, out});
    return support::read_file(out);
  }

  // Returns what is wrong with the filesystem of a disk. Empty: nothing.
  std::string complaint(const Bytes& disk) const {
    const std::string part = folder_ / "part";
    support::write_file(part, Bytes(disk.begin() + kStart, disk.end()));
    const auto outcome = tool_test::run_script(
        "e2fsck -fn \"$1\" && for i in $(seq 40); do debugfs -R \"dump /$i $3\" \"$1\" && "
        "cmp \"$3\" \"$2/$i\" || exit 1; done",
        {part, folder_ / "files", folder_ / "dumped"});
    return outcome.ok() ? "" : outcome.describe();
  }

 private:
  const TempDirectory folder_;
};

// Returns how many free blocks of `disk` are zeros. All other bytes must be those of `source`.
uint64_t zero_blocks(const Bytes& source, const Bytes& disk, const guest::Ranges& free) {
  REQUIRE(disk.size() == source.size());
  uint64_t zeros = 0;
  for (uint64_t at = 0; at < disk.size(); at += kBlock) {
    const auto* const is = disk.data() + at;
    if (std::equal(is, is + kBlock, source.data() + at)) continue;
    REQUIRE(free.without(guest::one_range(at, at + kBlock)).total() + kBlock == free.total());
    REQUIRE(std::all_of(is, is + kBlock, [](std::byte byte) { return byte == std::byte{0}; }));
    ++zeros;
  }
  return zeros;
}

json copied(Words words) {
  words.insert(words.begin(), {"copy", "--json", "--skip-free", "--verify"});
  const auto outcome = run_tool(words);
  INFO(outcome.describe());
  REQUIRE(outcome.ok());
  return json::parse(outcome.out);
}

}  // namespace

TEST_CASE("a copy without free space has zeros there, and all other data", "[skip_free]") {
  const Guest guest;
  const Bytes source = guest.bytes();
  const guest::Ranges free = guest.free();
  REQUIRE(free.total() > 10 << 20);
  run_ok({"qemu-img", "convert", "-O", "qcow2", guest.raw(), guest / "plain"});
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "extended_l2=on,cluster_size=128k", "-b",
          guest / "plain", "-F", "qcow2", guest / "top"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 119 23M 64k", guest / "top"});
  for (const Words& from :
       {Words{"-f", "raw", guest.raw()}, Words{guest / "plain"}, Words{"-c", guest / "plain"},
        Words{"-m", "3", guest / "plain"}, Words{"-O", "raw", guest / "plain"},
        Words{"-B", guest / "plain", guest / "top"},
        Words{"[", "nbdkit", "file", guest.raw(), "]"}}) {
    Words words = from;
    words.insert(words.begin(), "--force");
    words.push_back(guest / "copy");
    CAPTURE(support::shell_line(words));
    const json told = copied(words);
    const Bytes disk = guest.disk_of(guest / "copy");
    if (from.front() == "-B") {
      // Data that only the backing file has stays there.
      CHECK(zero_blocks(guest.disk_of(guest / "top"), disk, free) < free.total() / kBlock / 2);
      continue;
    }
    CHECK(zero_blocks(source, disk, free) * kBlock > free.total() - (1 << 20));
    CHECK(zero_blocks(source, disk, free) * kBlock <= free.total());
    CHECK(told["free-space"]["free"] == free.total());
    CHECK(told["free-space"]["free-stored"] > free.total() - (1 << 20));
    CHECK(told["free-space"]["filesystems"][0]["verdict"] == "known");
  }
  CHECK(guest.complaint(guest.disk_of(guest / "copy")) == "");
}

TEST_CASE("compressed clusters are omitted only as a whole", "[skip_free]") {
  const Guest guest;
  const Bytes source = guest.bytes();
  const guest::Ranges free = guest.free();
  run_ok({"qemu-img", "convert", "-c", "-O", "qcow2", guest.raw(), guest / "packed"});
  const json told = copied({"-c", "--compression=zlib", guest / "packed", guest / "copy"});
  const Bytes disk = guest.disk_of(guest / "copy");
  CHECK(zero_blocks(source, disk, free) * kBlock > free.total() / 2);
  CHECK(guest.complaint(disk) == "");
  // Streams of the source are still copied unchanged.
  CHECK(told["clusters"]["passed-through"] > 0);
}

TEST_CASE("free blocks of a server are not read", "[skip_free]") {
  const Guest guest;
  const guest::Ranges free = guest.free();
  const std::string log = guest / "log";
  copied(
      {"[", "nbdkit", "--filter=log", "file", guest.raw(), "logfile=" + log, "]", guest / "copy"});
  std::ifstream lines(log);
  uint64_t read = 0;
  uint64_t of_free = 0;
  for (std::string line; std::getline(lines, line);) {
    const size_t at = line.find("Read id="), offset = line.find("offset="),
                 count = line.find("count=");
    if (at == std::string::npos || offset == std::string::npos || count == std::string::npos)
      continue;
    const uint64_t begin = std::stoull(line.substr(offset + 7), nullptr, 0);
    const uint64_t length = std::stoull(line.substr(count + 6), nullptr, 0);
    read += length;
    of_free += free.within(guest::one_range(begin, begin + length)).total();
  }
  CHECK(read > 0);
  // The readers of metadata read larger pieces than they need.
  CHECK(of_free < 1 << 20);
}

TEST_CASE("a filesystem that is not trusted is copied completely", "[skip_free]") {
  const Guest guest;
  Bytes source = guest.bytes();
  // EXT4_FEATURE_INCOMPAT_RECOVER, as after a power failure.
  source[kStart + 1024 + 0x60] |= std::byte{4};
  support::write_file(guest.raw(), source);
  const auto outcome =
      run_tool({"copy", "--skip-free", "--verify", "-f", "raw", guest.raw(), guest / "copy"});
  CAPTURE(outcome.describe());
  REQUIRE(outcome.ok());
  CHECK_THAT(outcome.out,
             Contains("copied completely: /dev/sda1: not known:") && Contains("journal"));
  CHECK(guest.disk_of(guest / "copy") == source);
}

TEST_CASE("measure --skip-free predicts the size of the copy", "[skip_free]") {
  const Guest guest;
  run_ok({"qemu-img", "convert", "-O", "qcow2", guest.raw(), guest / "plain"});
  for (const Words& how : {Words{}, Words{"-c"}, Words{"-c", "--exact"}}) {
    Words measure{"measure", "--json", "--skip-free", guest / "plain"};
    Words copy{"copy", "-q", "--force", "--skip-free", guest / "plain", guest / "copy"};
    measure.insert(measure.end(), how.begin(), how.end());
    if (!how.empty()) copy.insert(copy.begin() + 1, "-c");
    const auto told = run_tool(measure);
    REQUIRE(told.ok());
    REQUIRE(run_tool(copy).ok());
    const json answer = json::parse(told.out);
    const uint64_t size = support::read_file(guest / "copy").size();
    CAPTURE(told.out, size);
    CHECK(answer["file-size-low"] <= size);
    CHECK(answer["file-size-high"] >= size);
    CHECK(answer["free-space"]["free-stored"] > 10 << 20);
  }
  CHECK_THAT(run_tool({"measure", "--skip-free", guest / "plain"}).out,
             Contains("of data that the guest does not use"));
  CHECK_THAT(run_tool({"measure", "--skip-free", "-U", guest / "plain"}).err,
             Contains("approximate"));
  CHECK_THAT(run_tool({"measure", "--skip-free", "--size", "1G"}).err, Contains("--skip-free"));
}

TEST_CASE("--skip-free is refused where it is unsafe", "[skip_free]") {
  for (const Words& words : {Words{"-", "out"}, Words{"-U", "in", "out"},
                             Words{"--salvage", "in", "out"}, Words{"--bitmap=b", "in", "out"}}) {
    Words command{"copy", "--skip-free"};
    command.insert(command.end(), words.begin(), words.end());
    const auto outcome = run_tool(command);
    CAPTURE(outcome.describe());
    CHECK_FALSE(outcome.ok());
    CHECK_THAT(outcome.err, Contains("--skip-free"));
  }
}
