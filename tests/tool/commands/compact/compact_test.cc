// virt-compact compact: the same image, shorter.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"
#include "tests/tool/commands/compact/compact_run.h"
#include "tests/tool/commands/encryption/luks_disk.h"

using namespace vc;

namespace {

using Catch::Contains;
using compact_test::states_of;
using compact_test::summary;
using nlohmann::json;
using support::run_ok;
using tool_test::run_tool;
using Words = std::vector<std::string>;

constexpr uint64_t kMiB = 1 << 20;

void qemu_io(const std::string& path, const Words& commands) {
  Words words{"qemu-io", "-f", "qcow2", "-d", "unmap"};
  for (const std::string& it : commands) {
    words.emplace_back("-c");
    words.push_back(it);
  }
  words.push_back(path);
  run_ok(words);
}

// An image of about 20 MiB, half of which is free, with two snapshots and a bitmap.
std::string make_disk(const support::TempDirectory& folder, const std::string& options = "") {
  const std::string disk = folder / "disk.qcow2";
  run_ok(
      {"qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=64k" + options, disk, "64M"});
  qemu_io(disk, {"write -q -P 1 0 4M"});
  run_ok({"qemu-img", "snapshot", "-c", "first", disk});
  qemu_io(disk, {"write -q -P 2 1M 8M", "write -q -c -P 9 20M 64k", "write -q -c -P 8 21M 64k"});
  run_ok({"qemu-img", "bitmap", "--add", disk, "b0"});
  qemu_io(disk, {"write -q -P 3 30M 6M", "write -q -P 4 12M 3M"});
  run_ok({"qemu-img", "snapshot", "-c", "second", disk});
  qemu_io(disk, {"write -q -P 5 0 1M", "write -q -P 6 40M 1M"});
  run_ok({"qemu-img", "snapshot", "-d", "second", disk});
  // Leaves the end of the file in use.
  qemu_io(disk, {"discard -q 30M 6M", "discard -q 1M 5M"});
  return disk;
}

void require_clean(const std::string& disk) {
  const auto check = support::run({"qemu-img", "check", "-q", "-f", "qcow2", disk});
  INFO(check.describe());
  REQUIRE(check.ok());
  REQUIRE((check.out + check.err).empty());
}

}  // namespace

TEST_CASE("compact makes the file as short as a dry run predicts, and keeps all states",
          "[compact]") {
  const support::TempDirectory folder;
  const std::string disk = make_disk(folder);
  const auto states = states_of(folder, disk);
  const uint64_t before = std::filesystem::file_size(disk);
  const auto bitmaps = run_ok({"qemu-img", "info", "--output=json", disk}).out;
  REQUIRE(bitmaps.find("\"b0\"") != std::string::npos);

  const json predicted = summary(run_tool({"compact", "--dry-run", "--json", disk}));
  CHECK(predicted["dry-run"] == true);
  CHECK(predicted["before"]["length"] == before);
  CHECK(std::filesystem::file_size(disk) == before);
  const json done = summary(run_tool({"compact", "--shrink", "--json", disk}));
  CHECK(done["snapshots"] == 1);
  CHECK(done["stopped"] == false);
  CHECK(done["moved"].get<uint64_t>() > kMiB);
  const uint64_t after = std::filesystem::file_size(disk);
  CHECK(done["after"]["length"] == after);
  CHECK(predicted["after"]["length"] == after);
  CHECK(after + 5 * kMiB < before);
  CHECK(done["after"]["actual-size"].get<uint64_t>() <= after);
  require_clean(disk);
  CHECK((states_of(folder, disk) == states));
  CHECK_THAT(run_ok({"qemu-img", "info", "--output=json", disk}).out, Contains("\"b0\""));

  // A second run has nothing to do.
  const auto again = run_tool({"compact", disk});
  INFO(again.describe());
  CHECK(again.ok());
  CHECK_THAT(again.out, Contains("has no free clusters to fill"));
  CHECK(std::filesystem::file_size(disk) == after);
}

TEST_CASE("compact needs no space for a copy", "[compact]") {
  const support::TempDirectory folder;
  const std::string disk = make_disk(folder);
  const auto states = states_of(folder, disk);
  // The file may not become longer than it is, as on a full filesystem.
  const auto outcome = tool_test::run_script(
      "ulimit -f $(( ( $(stat -c %s \"$1\") + 1023 ) / 1024 )) && exec \"$VIRT_COMPACT\" compact "
      "-q \"$1\"",
      {disk});
  INFO(outcome.describe());
  CHECK(outcome.ok());
  require_clean(disk);
  CHECK((states_of(folder, disk) == states));
}

TEST_CASE("compact --defragment makes the layout of a fresh copy", "[compact]") {
  const support::TempDirectory folder;
  const std::string disk = folder / "disk.qcow2";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", disk, "64M"});
  Words writes;
  for (unsigned i = 0; i < 100; ++i) {
    const uint64_t at = i * 37 % 100 * 512;
    writes.push_back("write -q -P " + std::to_string(i + 1) + " " + std::to_string(at) + "k 448k");
  }
  qemu_io(disk, writes);
  qemu_io(disk, {"discard -q 3M 4M", "discard -q 20M 10M"});
  run_ok({"qemu-img", "convert", "-O", "raw", disk, folder / "before"});
  const json predicted =
      summary(run_tool({"compact", "--defragment", "--dry-run", "--json", disk}));
  CHECK(predicted["misplaced"].get<uint64_t>() > 10 * kMiB);
  const json done = summary(run_tool({"compact", "--defragment", "--json", disk}));
  CHECK(done["moved"].get<uint64_t>() > 10 * kMiB);
  require_clean(disk);
  run_ok({"qemu-img", "compare", "-q", "-F", "raw", disk, folder / "before"});
  CHECK(run_ok({"qemu-img", "check", "--output=json", disk}).out.find("fragmented") ==
        std::string::npos);
  REQUIRE(run_tool({"copy", "-q", disk, folder / "fresh"}).ok());
  const auto fresh = static_cast<double>(std::filesystem::file_size(folder / "fresh"));
  CHECK(static_cast<double>(std::filesystem::file_size(disk)) <= 1.01 * fresh);
  const json again = summary(run_tool({"compact", "--defragment", "--json", disk}));
  CHECK(again["moved"] == 0);

  // Only the order is wrong.
  qemu_io(disk, {"discard -q 8M 64k", "discard -q 16M 64k", "write -q -P 7 16M 64k",
                 "write -q -P 8 8M 64k"});
  const auto outcome = run_tool({"compact", "--defragment", disk});
  INFO(outcome.describe());
  CHECK_THAT(outcome.out, Contains("is in the order of its guest"));
}

TEST_CASE("compact --zeros frees zeros that the guest has written", "[compact]") {
  const support::TempDirectory folder;
  const std::string disk = make_disk(folder);
  qemu_io(disk, {"write -q -P 0 44M 10M", "write -q -P 7 60M 1M"});
  const auto states = states_of(folder, disk);
  const json kept = summary(run_tool({"compact", "--dry-run", "--json", disk}));
  CHECK(kept["zeros"] == 0);
  const json predicted = summary(run_tool({"compact", "--zeros", "--dry-run", "--json", disk}));
  CHECK(predicted["zeros"] == 10 * kMiB);
  CHECK(predicted["after"]["length"].get<uint64_t>() + 10 * kMiB == kept["after"]["length"]);
  CHECK_THAT(run_tool({"compact", "--zeros", "--dry-run", disk}).out,
             Contains("zeros to free    10 MiB"));
  const json done = summary(run_tool({"compact", "--zeros", "--json", "-m1", disk}));
  CHECK(done["zeros"] == 10 * kMiB);
  CHECK(done["after"]["length"] == predicted["after"]["length"]);
  CHECK(done["after"]["length"] == std::filesystem::file_size(disk));
  require_clean(disk);
  CHECK((states_of(folder, disk) == states));
  CHECK(summary(run_tool({"compact", "--zeros", "--json", disk}))["zeros"] == 0);
}

TEST_CASE("compact refuses images that must be repaired first, or are in use", "[compact]") {
  const support::TempDirectory folder;
  const auto refuses = [](const std::string& disk, const std::string& why) {
    const auto before = support::read_file(disk);
    const auto outcome = run_tool({"compact", disk});
    INFO(outcome.describe());
    CHECK(outcome.exit_code == 1);
    CHECK_THAT(outcome.err, Contains(why));
    CHECK((support::read_file(disk) == before));
  };
  const std::string disk = make_disk(folder);
  const auto sound = support::read_file(disk);
  for (const auto& [bit, why] : {std::pair(1, "is marked dirty"), std::pair(2, "marked corrupt")}) {
    support::patch_file(disk, 79, std::vector{static_cast<std::byte>(bit)});
    refuses(disk, why);
    refuses(disk, "check -r all");
    support::write_file(disk, sound);
  }
  // The refcount of the first cluster, at the start of the first block, becomes 0.
  support::patch_file(disk, 2 * 64 * 1024, std::vector(2, std::byte{0}));
  refuses(disk, "check -r all");
  support::write_file(disk, sound);

  const std::string raw = folder / "disk.raw";
  support::write_file(raw, std::vector<std::byte>(4096));
  refuses(raw, "is a raw file");

  // QEMU writes to an image with bitmaps when it opens it.
  const std::string other = folder / "other.qcow2";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", other, "1M"});
  const std::string socket = folder / "socket";
  support::Child server({"qemu-nbd", "-t", "-k", socket, "-f", "qcow2", other}, folder / "log");
  while (server.running() && !std::filesystem::exists(socket)) usleep(10000);
  REQUIRE(server.running());
  refuses(other, "is in use by qemu-nbd");
}

TEST_CASE("compact frees leaked clusters first", "[compact]") {
  const support::TempDirectory folder;
  const std::string disk = folder / "disk.qcow2";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", disk, "16M"});
  qemu_io(disk, {"write -q -P 1 0 1M"});
  // The first L2 entry: the L2 table is the fifth cluster.
  support::patch_file(disk, 4 * 64 * 1024, std::vector(8, std::byte{0}));
  const json predicted = summary(run_tool({"compact", "--dry-run", "--json", disk}));
  CHECK(predicted["leaks"] == 1);
  REQUIRE(support::run({"qemu-img", "check", "-q", disk}).exit_code == 3);
  const uint64_t before = std::filesystem::file_size(disk);
  const json done = summary(run_tool({"compact", "--json", disk}));
  CHECK(done["leaks"] == 1);
  CHECK(done["after"]["length"] == before - 64 * 1024);
  CHECK(predicted["after"] == json{{"length", before - 64 * 1024}});
  require_clean(disk);
}

TEST_CASE("compact moves the data of an encrypted image with its key only", "[compact]") {
  const support::TempDirectory folder;
  const std::string disk = folder / "disk.qcow2";
  tool_test::create_luks(disk, "32M");
  tool_test::qemu_io(disk, {"write -q -P 1 0 8M", "write -q -P 2 16M 3M", "discard -q 1M 6M"});
  const auto content = tool_test::qemu_reads(disk);
  const auto bytes = support::read_file(disk);
  const auto refused = run_tool({"compact", disk});
  INFO(refused.describe());
  CHECK(refused.exit_code == 1);
  CHECK_THAT(refused.err, Contains("--key"));
  CHECK((support::read_file(disk) == bytes));
  const json predicted = summary(run_tool({"compact", "--dry-run", "--json", disk}));

  const json done =
      summary(run_tool({"compact", "--json", tool_test::key_in_file(folder / "key"), disk}));
  CHECK(done["after"]["length"] == predicted["after"]["length"]);
  CHECK(done["after"]["length"].get<uint64_t>() + 5 * kMiB < bytes.size());
  const auto check = tool_test::qemu_check(disk);
  INFO(check.describe());
  CHECK(check.ok());
  CHECK((tool_test::qemu_reads(disk) == content));
}

TEST_CASE("compact --zeros finds the zeros of an encrypted image", "[compact]") {
  const support::TempDirectory folder;
  const std::string disk = folder / "disk.qcow2";
  tool_test::create_luks(disk, "32M");
  tool_test::qemu_io(disk, {"write -q -P 1 0 2M", "write -q -P 0 2M 4M", "write -q -P 2 6M 1M"});
  const auto content = tool_test::qemu_reads(disk);
  const uint64_t before = std::filesystem::file_size(disk);
  // Without the key, a dry run cannot read the data.
  CHECK(summary(run_tool({"compact", "--zeros", "--dry-run", "--json", disk}))["zeros"] == 0);
  const std::string key = tool_test::key_in_file(folder / "key");
  const json done = summary(run_tool({"compact", "--zeros", "--json", key, disk}));
  CHECK(done["zeros"] == 4 * kMiB);
  CHECK(done["after"]["length"] == before - 4 * kMiB);
  CHECK(tool_test::qemu_check(disk).ok());
  CHECK((tool_test::qemu_reads(disk) == content));
}

TEST_CASE("compact moves the tables of an image with a data file, and not its data", "[compact]") {
  const support::TempDirectory folder;
  const std::string disk = folder / "disk.qcow2";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o",
          "cluster_size=512,data_file=" + (folder / "data"), disk, "1M"});
  qemu_io(disk, {"write -q -P 1 0 1M"});
  for (const char* const name : {"a", "b", "c"})
    run_ok({"qemu-img", "bitmap", "--add", "-g", "512", disk, name});
  run_ok({"qemu-img", "bitmap", "--remove", disk, "a"});
  run_ok({"qemu-img", "bitmap", "--remove", disk, "b"});
  const auto data = support::read_file(folder / "data");
  const uint64_t before = std::filesystem::file_size(disk);
  const auto outcome = run_tool({"compact", disk});
  INFO(outcome.describe());
  CHECK(outcome.ok());
  CHECK_THAT(outcome.out, Contains("guest data is in another file"));
  CHECK(std::filesystem::file_size(disk) < before);
  CHECK((support::read_file(folder / "data") == data));
  require_clean(disk);
  run_ok({"qemu-img", "compare", "-q", disk, "-F", "raw", folder / "data"});
}

TEST_CASE("compact does not need the backing file", "[compact]") {
  const support::TempDirectory folder;
  const std::string disk = folder / "top.qcow2";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", folder / "base", "16M"});
  qemu_io(folder / "base", {"write -q -P 1 0 16M"});
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", disk});
  qemu_io(disk, {"write -q -P 2 0 4M", "write -q -P 3 8M 2M", "discard -q 0 3M"});
  run_ok({"qemu-img", "convert", "-O", "raw", disk, folder / "before"});
  std::filesystem::rename(folder / "base", folder / "away");
  const auto outcome = run_tool({"compact", "-q", disk});
  INFO(outcome.describe());
  CHECK(outcome.ok());
  std::filesystem::rename(folder / "away", folder / "base");
  require_clean(disk);
  CHECK(std::filesystem::file_size(disk) < 4 * kMiB);
  run_ok({"qemu-img", "compare", "-q", "-F", "raw", disk, folder / "before"});
}

TEST_CASE("compact goes on after it was killed, and stops at a sound point", "[compact]") {
  const support::TempDirectory folder;
  const std::string disk = make_disk(folder);
  const auto states = states_of(folder, disk);
  // The signal comes at some point of the run; a run that ends before is fine, too.
  for (const char* const signal : {"INT", "KILL", "INT", "KILL"}) {
    const auto outcome = tool_test::run_script(
        "\"$VIRT_COMPACT\" compact -q \"$1\" & sleep 0.0$(( $$ % 9 )); kill -" +
            std::string(signal) + " $! 2>/dev/null; wait $! 2>/dev/null; true",
        {disk});
    INFO(outcome.describe());
    const auto check = support::run({"qemu-img", "check", "-q", "-f", "qcow2", disk});
    INFO(check.describe());
    REQUIRE((check.exit_code == 0 || check.exit_code == 3));
    REQUIRE((states_of(folder, disk) == states));
  }
  REQUIRE(run_tool({"compact", "-q", disk}).ok());
  require_clean(disk);
  CHECK((states_of(folder, disk) == states));
}
