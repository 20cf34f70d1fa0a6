#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tests/catch_text.h"
#include "tests/interop/bad_images.h"
#include "tests/interop/corner_images.h"
#include "tests/interop/image_editor.h"
#include "tests/interop/image_maker.h"
#include "tests/support/command_line.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using nlohmann::json;
using tool_test::run_script;
using tool_test::run_tool;

namespace {

// Runs `command` of the tool with limits of 20 seconds and 600 MB of address space. With a
// sanitizer, there is no memory limit.
support::Outcome run_limited(const std::vector<std::string>& command) {
#if defined(__SANITIZE_ADDRESS__)
  const std::string limit;
#else
  const std::string limit = "ulimit -v 600000; ";
#endif
  return run_script(limit + "exec timeout 20 \"$VIRT_COMPACT\" \"$@\"", command);
}

// Checks that it ends by itself: with success, or with an error in one line that names a file.
void check_ends(const std::vector<std::string>& command) {
  const auto outcome = run_limited(command);
  INFO(fmt::format("{}", fmt::join(command, " ")));
  INFO(outcome.describe());
  CHECK((outcome.exit_code == 0 || outcome.exit_code == 1));
  if (outcome.exit_code == 1) CHECK_THAT(outcome.err, Catch::Contains("virt-compact: error: "));
  CHECK(outcome.err.find("out of memory") == std::string::npos);
}

void check_all(const std::string& path, const std::string& picture) {
  check_ends({"info", "--output=json", "--backing-chain", path});
  check_ends({"map", "--output=json", path});
  check_ends({"map", "--force", "--svg", picture, path});
}

}  // namespace

TEST_CASE("check survives bad images", "[hostile]") {
  const support::TempDirectory folder;
  const support::TempDirectory pictures;
  for (const auto& bad : interop::make_bad_images(folder.path())) {
    CAPTURE(bad.name);
    check_all(bad.path, pictures / "picture.svg");
  }
}

TEST_CASE("check accepts unusual valid images", "[hostile]") {
  const support::TempDirectory folder;
  const support::TempDirectory pictures;
  for (const auto& corner : interop::make_corner_images(folder.path())) {
    CAPTURE(corner.name);
    const auto info = run_limited({"info", "--output=json", corner.path});
    INFO(info.describe());
    CHECK(info.ok());
    const auto map =
        run_limited({"map", "--force", "--svg", pictures / "picture.svg", corner.path});
    INFO(map.describe());
    CHECK(map.ok());
  }
}

TEST_CASE("check survives random damage of the metadata", "[hostile]") {
  const uint64_t seed = support::base_seed();
  for (uint64_t i = 0; i < support::iterations(8); ++i) {
    CAPTURE(seed + i);
    support::Random random(seed + i);
    const support::TempDirectory folder;
    const std::string path = folder / "image.qcow2";
    support::run_ok(
        {"qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", path, "64M"});
    support::run_ok({"qemu-io", "-c", "write 0 300k", "-c", "write -c 1M 64k", "-c",
                     "write -z 30M 1M", "-c", "write 60M 10k", path});
    support::run_ok({"qemu-img", "snapshot", "-c", "one", path});
    support::run_ok({"qemu-io", "-c", "write 20k 100k", path});
    interop::ImageEditor editor(path);
    const uint64_t size = editor.bytes().size();
    for (unsigned n = 0; n < 40; ++n) {
      // Damages tables, mostly where they are not zero, and seldom the header.
      const uint64_t at =
          random.chance(20) ? random.below(104) & ~uint64_t{7} : random.below(size / 8) * 8;
      if (at < 24) continue;
      const uint64_t word = editor.get64(at);
      if (word == 0 && random.chance(70)) continue;
      const uint64_t changed =
          random.chance(50) ? word ^ uint64_t { 1 } << random.below(64) : random.next();
      editor.put64(at, changed);
    }
    editor.save();
    check_all(path, folder / "picture.svg");
  }
}

TEST_CASE("a small file cannot cause much work", "[hostile]") {
  const support::TempDirectory folder;
  const std::string path = folder / "image.qcow2";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", path, "1P", "-o", "cluster_size=2M"});
  support::run_ok({"qemu-io", "-c", "write 0 2M", path});
  interop::ImageEditor editor(path);
  const uint64_t l1 = editor.get64(interop::ImageEditor::kL1Offset);
  const uint64_t entries = editor.get32(interop::ImageEditor::kL1Size);
  // Every L1 entry has the same table: a petabyte of data in 2 MiB.
  for (uint64_t i = 0; i < entries; ++i) editor.put64(l1 + i * 8, editor.get64(l1));
  editor.save();
  const auto info = run_limited({"info", "--output=json", path});
  INFO(info.describe());
  REQUIRE(info.ok());
  CHECK(json::parse(info.out)["damage"]["count"] == entries - 1);

  // A file with a length of 8 EiB, which is one hole.
  const std::string sparse = folder / "sparse.qcow2";
  support::run_ok(
      {"qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=512", sparse, "1M"});
  support::run_ok({"truncate", "-s", "4T", sparse});
  const auto missing = run_limited({"info", "--output=json", sparse});
  // Everything that qemu-img reports is there.
  CHECK(missing.exit_code == 0);
  CHECK_THAT(missing.err, Catch::Contains("warning: ") && Catch::Contains("too many to count"));
  CHECK(json::parse(missing.out)["missing"].size() == 1);
  CHECK(json::parse(missing.out)["virtual-size"] == 1 << 20);
}
