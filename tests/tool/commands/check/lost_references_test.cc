// Tables that were overwritten with zeros: the data that they referred to looks like leaks.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/catch_text.h"
#include "tests/interop/image_editor.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

namespace vc::checks {

namespace fs = std::filesystem;
using interop::ImageEditor;
using support::run_ok;

namespace {

support::Outcome check(const std::vector<std::string>& arguments) {
  std::vector<std::string> command{tool_test::virt_compact(), "check"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return support::run(command);
}

// Makes data in the first 12 of 16 MiB.
std::string make_image(const support::TempDirectory& folder, const std::string& options) {
  const std::string path = folder / "image";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, "16M"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 17 0 12M", path});
  return path;
}

void zero(ImageEditor& image, uint64_t at, uint64_t length) {
  std::fill_n(image.bytes().begin() + static_cast<ptrdiff_t>(at), length, std::byte{0});
}

// Nothing is freed without --lossy, and the reason is shown.
void expect_left(const std::string& path, const std::string& place) {
  const auto damaged = support::read_file(path);
  const auto told = check({"--output=json", path});
  INFO(told.describe());
  const auto json = nlohmann::json::parse(told.out);
  CHECK(json.value("references-lost", false));
  bool found = false;
  for (const auto& it : json["findings"])
    found |= it["kind"] == "lost-references" &&
             it["message"].get<std::string>().find("the " + place) != std::string::npos;
  CHECK(found);
  const auto text = check({path});
  CHECK_THAT(text.err, Catch::Contains("WARNING"));
  CHECK_THAT(text.out, Catch::Contains("They may hold data of the guest"));
  for (const char* const what : {"leaks", "all"}) {
    const auto repaired = check({"-r", what, path});
    INFO(repaired.describe());
    CHECK_FALSE(repaired.ok());
    CHECK_THAT(repaired.out, Catch::Contains("Refcounts were not lowered"));
    CHECK_THAT(repaired.out, Catch::Contains("copy --salvage"));
    CHECK((support::read_file(path) == damaged));
  }
  const auto lossy = check({"-q", "-r", "all", "--lossy", path});
  INFO(lossy.describe());
  CHECK(lossy.ok());
  run_ok({"qemu-img", "check", "-q", path});
}

}  // namespace

TEST_CASE("a zeroed L2 table keeps its data", "[lost]") {
  const support::TempDirectory folder;
  const auto* const options = GENERATE("cluster_size=64k", "cluster_size=4k,refcount_bits=1",
                                       "cluster_size=64k,extended_l2=on");
  INFO(options);
  const std::string path = make_image(folder, options);
  ImageEditor image(path);
  const uint64_t table = image.get64(image.l1_entry_at(0)) & 0x00fffffffffffe00;
  zero(image, table, image.cluster_size());
  image.save();
  expect_left(path, "L2 table");
}

TEST_CASE("a sector of an L2 table that is lost keeps its data", "[lost]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder, "cluster_size=4k");
  ImageEditor image(path);
  const uint64_t table = image.get64(image.l1_entry_at(0)) & 0x00fffffffffffe00;
  const auto [at, length] = GENERATE(std::pair(512, 512), std::pair(2048, 2048), std::pair(0, 512));
  zero(image, table + at, length);
  image.save();
  expect_left(path, "L2 table");
}

TEST_CASE("a zeroed L1 table, or a sector of it, keeps its data", "[lost]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder, "cluster_size=512");
  ImageEditor image(path);
  const uint64_t l1 = image.get64(ImageEditor::kL1Offset);
  const auto length = GENERATE(0, 512);
  zero(image, l1, length == 0 ? image.get32(ImageEditor::kL1Size) * 8 : length);
  image.save();
  expect_left(path, "L1 table");
}

TEST_CASE("a zeroed L1 table of a snapshot, or table of snapshots, keeps its data", "[lost]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder, "cluster_size=4k");
  run_ok({"qemu-img", "snapshot", "-c", "s", path});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 18 1M 3M", path});
  ImageEditor image(path);
  const uint64_t row = image.get64(ImageEditor::kSnapshotOffset);
  SECTION("its L1 table") {
    zero(image, image.get64(row), uint64_t{image.get32(row + 8)} * 8);
    image.save();
    expect_left(path, "L1 table");
  }
  SECTION("the table of snapshots") {
    zero(image, row, 128);
    image.save();
    const auto damaged = support::read_file(path);
    const auto repaired = check({"-r", "all", path});
    INFO(repaired.describe());
    CHECK_THAT(repaired.out, Catch::Contains("Refcounts were not lowered"));
    CHECK((support::read_file(path) == damaged));
  }
}

TEST_CASE("a zeroed table of a bitmap keeps its data", "[lost]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder, "cluster_size=4k");
  run_ok({"qemu-img", "bitmap", "--add", "-g", "512", path, "b"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 18 1M 3M", path});
  ImageEditor image(path);
  for (const auto& it : image.extensions())
    if (it.type == 0x23852875) {
      uint64_t directory = 0;
      for (size_t i = 16; i < 24; ++i)
        directory = directory << 8 | std::to_integer<uint64_t>(it.data[i]);
      zero(image, image.get64(directory), uint64_t{image.get32(directory + 8)} * 8);
    }
  image.save();
  expect_left(path, "bitmap table");
}

// The data of a zeroed table has no refcounts either, so it looks like free clusters.
TEST_CASE("refcounts are not rebuilt while a table is all zeros", "[lost]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder, "cluster_size=64k");
  ImageEditor image(path);
  zero(image, image.get64(image.l1_entry_at(0)) & 0x00fffffffffffe00, image.cluster_size());
  zero(image, image.get64(ImageEditor::kRefcountTableOffset), 8);
  image.save();
  const auto left = check({"-r", "all", "--undo", folder / "first", path});
  INFO(left.describe());
  CHECK_FALSE(left.ok());
  CHECK_THAT(left.out, Catch::Contains("Refcounts were not lowered"));
  CHECK(support::read_file(path).size() == image.bytes().size());
  CHECK(check({"-q", "-r", "all", "--lossy", path}).ok());
  run_ok({"qemu-img", "check", "-q", path});
}

// Leaks of a crash are still freed beside holes of any shape.
TEST_CASE("leaks beside a sparse disk are freed", "[lost]") {
  const support::TempDirectory folder;
  const std::string path = folder / "image";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", path, "16M"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 17 0 100k", "-c", "write -q -P 18 300k 40k",
          "-c", "write -q -P 19 5M 1020k", path});
  ImageEditor image(path);
  const uint64_t cluster = image.bytes().size() / 4096;
  const uint64_t block = image.get64(image.get64(ImageEditor::kRefcountTableOffset));
  for (uint64_t i = 0; i < 3; ++i) image.put(block + (cluster + i) * 2, std::string("\0\1", 2));
  image.bytes().resize((cluster + 3) * 4096, std::byte{0xee});
  image.save();
  const auto repaired = check({"-r", "leaks", "--output=json", path});
  INFO(repaired.describe());
  CHECK(repaired.ok());
  CHECK(nlohmann::json::parse(repaired.out)["leaks-fixed"] == 3);
  run_ok({"qemu-img", "check", "-q", path});
}

}  // namespace vc::checks
