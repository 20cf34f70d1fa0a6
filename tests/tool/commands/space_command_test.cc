// The output of virt-compact space for files and servers.
#include <nlohmann/json.hpp>

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
using Words = std::vector<std::string>;

constexpr uint64_t kDisk = 24 << 20;
constexpr uint64_t kExt4 = 16 << 20;
constexpr uint64_t kStart = 1 << 20;

// Makes a disk of data, with an ext4 filesystem, a swap partition and a partition of data.
std::string make_disk(const TempDirectory& folder) {
  const std::string raw = folder / "raw", script = folder / "script";
  support::write_file(raw, std::string(kDisk, 'x'));
  support::write_file(script, std::string("label: dos\nstart=2048,size=32768\n,6144,82\n,\n"));
  REQUIRE(tool_test::run_script("sfdisk -q \"$1\" < \"$2\"", {raw, script}).ok());
  run_ok({"mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-L", "system", "-E",
          "nodiscard,lazy_itable_init=0,offset=" + std::to_string(kStart), raw, "16M"});
  const std::string swap = folder / "swap";
  support::write_file(swap, std::string(3 << 20, 'x'));
  run_ok({"mkswap", "-q", swap});
  run_ok({"dd", "if=" + swap, "of=" + raw, "bs=1M", "seek=17", "conv=notrunc", "status=none"});
  return raw;
}

json report(Words words) {
  words.insert(words.begin(), {"space", "--json"});
  const auto outcome = run_tool(words);
  INFO(outcome.describe());
  REQUIRE(outcome.ok());
  return json::parse(outcome.out);
}

// Removes the figure that depends on how the image stores zeros.
json filesystems(const Words& words) {
  json told = report(words)["filesystems"];
  for (json& it : told) it.erase("free-stored");
  return told;
}

}  // namespace

TEST_CASE("space shows the free space, and how much of it is stored", "[space]") {
  const TempDirectory folder;
  const std::string raw = make_disk(folder), image = folder / "image";
  run_ok({"qemu-img", "convert", "-O", "qcow2", raw, image});
  const json told = report({image});
  CAPTURE(told.dump(1));
  REQUIRE(told["filesystems"].size() == 3);
  const json& ext4 = told["filesystems"][0];
  CHECK(ext4["device"] == "/dev/sda1");
  CHECK(ext4["type"] == "ext4");
  CHECK(ext4["label"] == "system");
  CHECK(ext4["verdict"] == "known");
  CHECK(ext4["size"] == kExt4);
  const uint64_t free = ext4["free"];
  CHECK(free > kExt4 / 2);
  CHECK(ext4["used"] == kExt4 - free);
  // The disk was full of data before it had a filesystem. mke2fs may have written zeros to a
  // cluster that is free now.
  const uint64_t stored = ext4["free-stored"];
  CHECK(stored <= free);
  CHECK(stored + (128 << 10) >= free);
  const json& swap = told["filesystems"][1];
  CHECK(swap["type"] == "swap");
  CHECK(swap["free"] == (3 << 20) - (64 << 10));
  CHECK(swap["free-stored"] == swap["free"]);
  const json& unknown = told["filesystems"][2];
  CHECK(unknown["verdict"] == "unsure");
  CHECK(unknown["free"].is_null());
  CHECK(told["disks"][0]["free"] == free + swap["free"].get<uint64_t>());
  CHECK(told["disks"][0]["virtual-size"] == kDisk);
  CHECK(told["approximate"] == false);

  const auto text = run_tool({"space", image});
  CAPTURE(text.describe());
  CHECK_THAT(text.out, Contains("/dev/sda1   ext4") && Contains("not known"));
}

TEST_CASE("space shows the same for a server, an overlay, and a confined process", "[space]") {
  const TempDirectory folder;
  const std::string raw = make_disk(folder), image = folder / "image", top = folder / "top";
  run_ok({"qemu-img", "convert", "-c", "-O", "qcow2", raw, image});
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", image, "-F", "qcow2", top});
  const json expected = filesystems({image});
  CHECK(filesystems({"-f", "raw", raw}) == expected);
  CHECK(filesystems({"--image-opts", "driver=qcow2,file.filename=" + top}) == expected);
  CHECK(filesystems({"--untrusted", image}) == expected);
  CHECK(filesystems({"[", "nbdkit", "file", raw, "]"}) == expected);
  // A trimmed overlay stores no free space.
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -z 17472k 3008k", folder / "top"});
  CHECK(report({top})["filesystems"][1]["free-stored"] == 0);
  CHECK(report({"-U", top})["approximate"] == true);
}

TEST_CASE("space reports what it cannot read", "[space]") {
  const TempDirectory folder;
  CHECK_THAT(run_tool({"space"}).err, Contains("DISK is missing"));
  CHECK_THAT(run_tool({"space", "-"}).err, Contains("pipe"));
  const auto missing = run_tool({"space", folder / "nothing"});
  CHECK(missing.exit_code == 1);
  CHECK_THAT(missing.err, Contains("nothing: No such file"));
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", folder / "empty", "1M"});
  const auto empty = run_tool({"space", folder / "empty"});
  CHECK(empty.ok());
  CHECK_THAT(empty.out, Contains("not known") || Contains("No filesystem"));
}

TEST_CASE("a doubtful partition table does not mean that there is no filesystem", "[space]") {
  const TempDirectory folder;
  const std::string raw = folder / "raw";
  support::write_file(raw, std::string());
  support::resize_file(raw, kDisk);
  REQUIRE(tool_test::run_script("echo 'label: gpt' | sfdisk -q \"$1\"", {raw}).ok());
  support::patch_file(raw, 0, std::vector<std::byte>(512));
  const auto outcome = run_tool({"space", "-f", "raw", raw});
  CHECK(outcome.ok());
  CHECK_THAT(outcome.out, Contains("/dev/sda: "));
  CHECK_THAT(outcome.out, !Contains("No filesystem"));
}
