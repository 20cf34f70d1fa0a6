// Tests virt-compact check as a script uses it.
#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "storage/file_storage.h"
#include "tests/catch.h"
#include "tests/interop/image_editor.h"
#include "tests/qcow2/check/both_checks.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

namespace vc::checks {

using interop::ImageEditor;
using nlohmann::json;
using support::run_ok;

namespace {

support::Outcome check(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {tool_test::virt_compact(), "check"});
  return support::run(arguments);
}

std::string make_image(const support::TempDirectory& folder) {
  const std::string path = folder / "disk.qcow2";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", path, "4M"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q 0 192k", "-c", "write -q -c 1M 64k", path});
  return path;
}

// Sets the refcount of a data cluster to 2, so that there is a leak and COPIED is wrong.
void leak(const std::string& path) {
  ImageEditor editor(path);
  const uint64_t block = editor.get64(editor.get64(ImageEditor::kRefcountTableOffset));
  editor.put32(block + 5 * 2, 0x00020001);
  editor.save();
}

}  // namespace

TEST_CASE("exit codes are qemu-img's", "[command]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder);
  CHECK(check({path}).exit_code == 0);
  leak(path);
  const auto corrupt = check({path});
  INFO(corrupt.describe());
  CHECK(corrupt.exit_code == 2);
  CHECK_THAT(corrupt.err,
             Catch::Contains("Leaked cluster 5 (at 0x50000): refcount=2 references=1"));
  CHECK_THAT(corrupt.err, Catch::Contains("ERROR guest offset 0x0: entry 0x8000000000050000 has "
                                          "the COPIED flag"));
  CHECK_THAT(corrupt.out, Catch::Contains("1 errors were found") &&
                              Catch::Contains("1 leaked clusters were found") &&
                              Catch::Contains("Image end offset: 589824"));

  ImageEditor editor(path);
  editor.put64(editor.l2_entry_at(0), editor.get64(editor.l2_entry_at(0)) & ~(uint64_t{1} << 63));
  editor.save();
  CHECK(check({path}).exit_code == 3);

  support::write_file(folder / "raw", std::string(8192, 'x'));
  support::write_file(folder / "empty", std::string());
  run_ok({"qemu-img", "create", "-q", "-f", "vmdk", folder / "disk.vmdk", "1M"});
  CHECK(check({folder / "raw"}).exit_code == 63);
  CHECK(check({folder / "empty"}).exit_code == 63);
  CHECK(check({"-f", "raw", path}).exit_code == 63);
  const auto vmdk = check({folder / "disk.vmdk"});
  CHECK(vmdk.exit_code == 63);
  CHECK_THAT(vmdk.err, Catch::Contains("VMDK"));
  CHECK(check({"-f", "qcow2", folder / "raw"}).exit_code == 1);
  CHECK(check({folder / "nowhere"}).exit_code == 1);
  CHECK(check({"--bogus", path}).exit_code == 1);
  CHECK(check({}).exit_code == 1);
}

TEST_CASE("a table past the end of the file is reported with its type", "[command]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder);
  ImageEditor editor(path);
  const uint64_t l1 = editor.get64(ImageEditor::kL1Offset);
  SECTION("an L2 table") {
    editor.put64(l1, uint64_t{1} << 63 | uint64_t{1} << 40);
    editor.save();
    CHECK_THAT(check({path}).err,
               Catch::Contains("guest offset 0x0: the L2 table at 0x10000000000 (65536 bytes) is "
                               "past the end of the file"));
  }
  SECTION("the L1 table") {
    editor.put64(ImageEditor::kL1Offset, uint64_t{1} << 40);
    editor.save();
    CHECK_THAT(check({path}).err, Catch::Contains("the L1 table at 0x10000000000 (8 bytes) is "
                                                  "past the end of the file"));
  }
}

TEST_CASE("the JSON has all keys of qemu-img, and more", "[command]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder);
  for (const bool good : {true, false}) {
    if (!good) leak(path);
    const auto ours = check({"--output=json", path});
    const json mine = json::parse(ours.out);
    const json theirs = json::parse(support::run({"qemu-img", "check", "--output=json", path}).out);
    for (const auto& [key, value] : theirs.items()) {
      CAPTURE(key);
      REQUIRE(mine.contains(key));
      CHECK(mine[key] == value);
    }
    // Keys that qemu-img omits if they are 0 are omitted here, too.
    for (const char* key : {"leaks", "corruptions", "compressed-clusters", "leaks-fixed"})
      CHECK(mine.contains(key) == theirs.contains(key));
    CHECK(mine["findings"].size() == (good ? 0 : 2));
    CHECK(ours.err.empty());
    if (good) continue;
    const json& copied = mine["findings"][0];
    CHECK(copied["kind"] == "l2-copied-flag");
    CHECK(copied["guest-offset"] == 0);
    CHECK(copied["found"] == "0x8000000000050000");
    CHECK(copied["expected"] == "0x0000000000050000");
    CHECK(mine["findings"][1]["found"] == 2);
  }
  // Three uncompressed clusters, directly followed by a compressed one.
  CHECK(json::parse(check({"--output=json", path}).out)["fragmentation"]["runs"] == 1);
  const json deep = json::parse(check({"--deep", "--output=json", path}).out);
  CHECK(deep["decoded-clusters"] == 1);
  CHECK(deep["undecodable-clusters"] == 0);
}

TEST_CASE("a check respects the locks of writers", "[command]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder);
  const auto held = FileStorage::open_writable(path);
  REQUIRE(held);
  REQUIRE((*held)->lock(ImageClaim::writing(), ""));
  const auto refused = check({path});
  CHECK(refused.exit_code == 1);
  CHECK_THAT(refused.err, Catch::Contains(path) && Catch::Contains("--force-share"));
  CHECK(check({"-U", path}).exit_code == 0);
}

TEST_CASE("options of qemu-img check are accepted", "[command]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder);
  const auto quiet = check({"-q", "-f", "qcow2", "-T", "none", path});
  INFO(quiet.describe());
  CHECK(quiet.exit_code == 0);
  CHECK(quiet.out.empty());
  CHECK(check({"-T", "sometimes", path}).exit_code == 1);
}

TEST_CASE("a missing backing file or data file is no error", "[command]") {
  const support::TempDirectory folder;
  const std::string base = make_image(folder);
  const std::string overlay = folder / "overlay.qcow2";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", overlay});
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=" + (folder / "data"),
          folder / "data.qcow2", "1M"});
  CHECK(::unlink(base.c_str()) == 0);
  CHECK(::unlink((folder / "data").c_str()) == 0);
  CHECK(check({overlay}).exit_code == 0);
  CHECK(check({folder / "data.qcow2"}).exit_code == 0);
}

TEST_CASE("a check can be cancelled", "[command]") {
  class Impatient final : public qcow2::CheckObserver {
   public:
    void found(const qcow2::Finding&) override {}
    bool cancelled() override { return true; }
  };
  const support::TempDirectory folder;
  const auto file = FileStorage::open_readonly(make_image(folder));
  REQUIRE(file);
  auto checker = qcow2::Checker::open(**file, {});
  REQUIRE(checker);
  Impatient observer;
  const auto sums = checker->run(observer);
  REQUIRE(!sums);
  CHECK(sums.error().kind() == Error::Kind::kCancelled);
}

TEST_CASE("reference counts are returned with and without the clusters of the refcounts",
          "[command]") {
  class Nobody final : public qcow2::CheckObserver {
   public:
    void found(const qcow2::Finding&) override { FAIL("a finding of a count"); }
  };
  const support::TempDirectory folder;
  const std::string path = make_image(folder);
  leak(path);
  const auto file = FileStorage::open_readonly(path);
  REQUIRE(file);
  auto checker = qcow2::Checker::open(**file, {});
  REQUIRE(checker);
  Nobody observer;
  for (const bool with : {true, false}) {
    std::vector<uint32_t> counts;
    REQUIRE(
        checker->count(with, observer, [&](const qcow2::ReferenceCounts& window) -> Result<void> {
          for (uint64_t i = 0; i < checker->clusters(); ++i)
            counts.push_back(window.get(HostCluster(i)));
          return {};
        }));
    // Header, refcount table, refcount block, L1 table, L2 table, data, compressed.
    const uint32_t of_refcounts = with ? 1 : 0;
    CHECK(counts == std::vector<uint32_t>{1, of_refcounts, of_refcounts, 1, 1, 1, 1, 1, 1});
  }
}

}  // namespace vc::checks
