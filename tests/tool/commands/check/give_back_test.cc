// A repair deallocates free clusters, and can be undone.
#include <sys/stat.h>

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

uint64_t blocks(const std::string& path) {
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  return static_cast<uint64_t>(status.st_blocks) * 512;
}

constexpr uint64_t kCluster = 64 << 10;

// Makes 4 MiB of data, with 64 leaked clusters of data before and after it. `freed`: the leaked
// clusters have no refcounts.
std::string make_image(const support::TempDirectory& folder, bool freed = false) {
  const std::string path = folder / "image";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", path, "64M"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 7 0 4M", "-c", "write -q -P 8 9M 4M", "-c",
          "write -q -P 9 16M 4M", path});
  ImageEditor image(path);
  for (const uint64_t gone : {uint64_t{0}, uint64_t{16} << 20})
    for (uint64_t i = 0; i < 64; ++i) {
      const uint64_t entry = image.l2_entry_at(gone + i * kCluster);
      const uint64_t cluster = (image.get64(entry) & 0x00fffffffffffe00) / kCluster;
      image.put64(entry, 1);
      const uint64_t block = image.get64(image.get64(ImageEditor::kRefcountTableOffset));
      if (freed) image.put(block + 2 * cluster, std::string(2, '\0'));
    }
  image.save();
  return path;
}

}  // namespace

TEST_CASE("a repair deallocates leaked clusters", "[give_back]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder);
  run_ok({"qemu-img", "convert", "-O", "raw", path, folder / "good"});
  const auto before = support::read_file(path);
  const uint64_t before_blocks = blocks(path);
  const auto* const what = GENERATE("leaks", "all");
  const auto repaired = check({"-r", what, "--output=json", path});
  INFO(repaired.describe());
  CHECK(repaired.ok());
  const auto json = nlohmann::json::parse(repaired.out);
  CHECK(json["leaks-fixed"] == 128);
  CHECK(json["given-back"] == 128 * kCluster);
  CHECK(before_blocks - blocks(path) >= 128 * kCluster);
  CHECK(fs::file_size(path) == before.size() - 64 * kCluster);
  run_ok({"qemu-img", "check", "-q", path});
  run_ok({"qemu-img", "compare", "-q", path, folder / "good"});
  const auto undone = check({"--apply-undo", path + ".undo", path});
  INFO(undone.describe());
  CHECK(undone.ok());
  CHECK((support::read_file(path) == before));
}

TEST_CASE("a repair also deallocates clusters that were free before", "[give_back]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder, true);
  const uint64_t before = blocks(path);
  CHECK_THAT(check({"-r", "leaks", path}).out, Catch::Contains("8 MiB of free clusters"));
  CHECK(before - blocks(path) >= 128 * kCluster);
  run_ok({"qemu-img", "check", "-q", path});
  // Nothing to repair, so there is no undo file.
  fs::remove(path + ".undo");
  CHECK(check({"-q", "-r", "all", path}).ok());
  CHECK_FALSE(fs::exists(path + ".undo"));
}

TEST_CASE("--undo none makes no undo file", "[give_back]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder);
  const auto repaired = check({"-r", "all", "--undo", "none", path});
  INFO(repaired.describe());
  CHECK(repaired.ok());
  CHECK(repaired.out.find("To undo the repair") == std::string::npos);
  CHECK_FALSE(fs::exists(path + ".undo"));
  CHECK_FALSE(fs::exists("none"));
  run_ok({"qemu-img", "check", "-q", path});
}

// Leaked clusters that may be data are kept.
TEST_CASE("nothing is deallocated while references are lost", "[give_back]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder);
  ImageEditor image(path);
  const uint64_t table = image.get64(image.l1_entry_at(0)) & 0x00fffffffffffe00;
  std::fill_n(image.bytes().begin() + static_cast<ptrdiff_t>(table), kCluster, std::byte{0});
  image.save();
  const auto before = support::read_file(path);
  CHECK_FALSE(check({"-r", "all", path}).ok());
  CHECK((support::read_file(path) == before));
}

}  // namespace vc::checks
