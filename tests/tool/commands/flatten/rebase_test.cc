// Compares virt-compact rebase -u with QEMU.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "qcow2/format/header.h"
#include "qcow2/write/backing_name.h"
#include "tests/catch_text.h"
#include "tests/qcow2/write/crash_storage.h"
#include "tests/support/command_line.h"
#include "tests/support/memory_storage.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using Catch::Contains;
using nlohmann::json;
using support::run_ok;
using support::TempDirectory;
using tool_test::run_tool;

namespace fs = std::filesystem;

namespace {

// Makes an overlay of "base", both with data.
std::string make_overlay(const TempDirectory& folder, const std::string& options = "") {
  const std::string base = folder / "base", top = folder / "top";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", base, "4M"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 5 0 1M", base});
  std::vector<std::string> command{"qemu-img", "create", "-q", "-f",   "qcow2",
                                   "-b",       "base",   "-F", "qcow2"};
  if (!options.empty()) command.insert(command.end(), {"-o", options});
  command.push_back(top);
  run_ok(command);
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 6 64k 64k", top});
  return top;
}

json info_of(const std::string& path) {
  return json::parse(run_ok({"qemu-img", "info", "--output=json", path}).out);
}

std::string refused(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "rebase");
  const auto outcome = run_tool(arguments);
  CHECK(outcome.exit_code == 1);
  return outcome.err;
}

}  // namespace

TEST_CASE("rebase -u follows a backing file that was moved", "[rebase]") {
  const TempDirectory folder;
  const std::string options = GENERATE("", "compat=0.10", "cluster_size=512", "lazy_refcounts=on");
  CAPTURE(options);
  const std::string top = make_overlay(folder, options);
  const std::string before = folder / "before", after = folder / "after";
  run_ok({"qemu-img", "convert", "-O", "raw", top, before});
  // A short name, one longer than a sector, and a short one again.
  std::vector<std::string> names{"moved"};
  if (options != "cluster_size=512")
    names.push_back(std::string(200, 'd') + "/" + std::string(200, 'e') + "/" +
                    std::string(200, 'f'));
  names.emplace_back("b");
  std::string old = "base";
  for (const std::string& name : names) {
    fs::create_directories(fs::path(folder / name).parent_path());
    fs::rename(folder / old, folder / name);
    const auto done = run_tool({"rebase", "-u", "-b", name, "-F", "qcow2", top});
    CAPTURE(name, done.describe());
    REQUIRE(done.ok());
    CHECK_THAT(done.out, Contains("backing file '" + name + "' (qcow2), was '" + old + "'"));
    const json info = info_of(top);
    CHECK(info["backing-filename"] == name);
    CHECK(info["backing-filename-format"] == "qcow2");
    run_ok({"qemu-img", "check", "-q", top});
    run_ok({"qemu-img", "convert", "-O", "raw", top, after});
    CHECK((support::read_file(after) == support::read_file(before)));
    old = name;
  }
  // The format is detected.
  fs::rename(folder / old, folder / "last");
  CHECK(run_tool({"rebase", "-q", "-u", "-b", "last", top}).ok());
  CHECK(info_of(top)["backing-filename-format"] == "qcow2");
  // Removes the backing file.
  const auto done = run_tool({"rebase", "-u", "--json", "-b", "", top});
  CAPTURE(done.describe());
  REQUIRE(done.ok());
  const json told = json::parse(done.out);
  CHECK(told["old-backing-filename"] == "last");
  CHECK(told["backing-filename"] == "");
  CHECK_FALSE(info_of(top).contains("backing-filename"));
  run_ok({"qemu-io", "-f", "qcow2", "-c", "read -q -P 0 0 64k", "-c", "read -q -P 6 64k 64k", top});
}

TEST_CASE("a crash during rebase leaves the old name or the new one", "[rebase]") {
  const TempDirectory folder;
  const std::string top = make_overlay(folder);
  const bool long_header = GENERATE(false, true);
  const std::string name = GENERATE(std::string("short"), std::string(600, 'x'));
  auto bytes = support::read_file(top);
  if (long_header) {
    auto header = qcow2::Header::read(qcow2::MemoryStorage("top", bytes));
    REQUIRE_OK(header);
    header->extensions.push_back({0x12345678, std::vector<std::byte>(200, std::byte{7})});
    const auto encoded = header->encode();
    REQUIRE_OK(encoded);
    std::copy(encoded->begin(), encoded->end(), bytes.begin());
  }
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    test::CrashStorage storage(bytes);
    std::vector<std::vector<std::byte>> crashes;
    storage.crash_at_flushes(crashes, seed);
    REQUIRE_OK(qcow2::set_backing_name(storage, name, "raw"));
    std::mt19937_64 random(seed);
    crashes.push_back(storage.after_crash(random));
    for (const auto& crash : crashes) {
      const auto header = qcow2::Header::read(qcow2::MemoryStorage("top", crash));
      REQUIRE_OK(header);
      const bool changed = header->backing_file == name;
      CHECK((changed || header->backing_file == "base"));
      CHECK(header->backing_format() == (changed ? "raw" : "qcow2"));
      CHECK((header->find_extension(0x12345678) != nullptr) == long_header);
    }
    CHECK(qcow2::Header::read(qcow2::MemoryStorage("top", crashes.back()))->backing_file == name);
  }
}

TEST_CASE("rebase refuses what it cannot do, and changes nothing", "[rebase]") {
  const TempDirectory folder;
  const std::string top = make_overlay(folder);
  const auto bytes = support::read_file(top);
  CHECK_THAT(refused({top}), Contains("-b is missing"));
  CHECK_THAT(refused({"-b", "base", top}), Contains("qemu-img rebase") &&
                                               Contains("virt-compact copy -B") &&
                                               Contains("virt-compact flatten"));
  CHECK_THAT(refused({"-u", "-b", "gone", top}),
             Contains("gone: No such file") && Contains("--force"));
  CHECK_THAT(refused({"-u", "--force", "-b", "gone", top}), Contains("must be given (-F)"));
  CHECK_THAT(refused({"-u", "-b", "top", top}), Contains("its own backing file"));
  CHECK_THAT(refused({"-u", "-b", std::string(1024, 'x'), "-F", "raw", "--force", top}),
             Contains("1024 bytes: 1023 are allowed"));
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", "top", "-F", "qcow2", folder / "over"});
  CHECK_THAT(refused({"-u", "-b", "over", top}), Contains("its own backing file"));
  CHECK_THAT(run_tool({"rebase", "-u", "--dry-run", "-b", "", top}).out,
             Contains("backing file none, would be; it is 'base'"));
  CHECK((support::read_file(top) == bytes));
  CHECK(run_tool({"rebase", "-q", "-u", "--force", "-b", "gone", "-F", "raw", top}).ok());
  CHECK(info_of(top)["backing-filename"] == "gone");
}
