// Compares virt-compact flatten with QEMU.
#include <chrono>
#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "qcow2/format/header.h"
#include "qcow2/write/backing_name.h"
#include "tests/catch_text.h"
#include "tests/interop/image_editor.h"
#include "tests/qcow2/write/crash_storage.h"
#include "tests/support/command_line.h"
#include "tests/support/dirty_bits.h"
#include "tests/support/memory_storage.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using Catch::Contains;
using support::Random;
using support::run_ok;
using support::TempDirectory;
using tool_test::run_tool;

namespace fs = std::filesystem;

namespace {

void write_at_random(const std::string& path, const std::string& format, uint64_t size,
                     Random& random, unsigned requests) {
  std::vector<std::string> command{"qemu-io", "-f", format};
  for (unsigned i = 0; i < requests; ++i) {
    const uint64_t at = random.below(size / 512) * 512;
    const uint64_t length = std::min<uint64_t>(random.between(1, 600) * 512, size - at);
    const auto range = std::to_string(at) + " " + std::to_string(length);
    command.emplace_back("-c");
    if (random.chance(20)) {
      command.push_back("write -q -z " + range);
    } else {
      // Includes stored zeros.
      const unsigned value = random.chance(25) ? 0 : static_cast<unsigned>(random.between(1, 255));
      command.push_back("write -q -P " + std::to_string(value) + " " + range);
    }
  }
  command.push_back(path);
  run_ok(command);
}

// Makes a chain of `depth` overlays over "base". Returns the path of the top.
std::string make_chain(const TempDirectory& folder, Random& random, uint64_t size) {
  const bool raw = random.chance(40);
  std::string below = "base", format = raw ? "raw" : "qcow2";
  // Shorter or longer than the overlay.
  const uint64_t base_size = random.between(1, size / 512 * 3 / 2) * 512;
  run_ok({"qemu-img", "create", "-q", "-f", format, folder / below, std::to_string(base_size)});
  write_at_random(folder / below, format, base_size, random, 12);
  for (const std::string name : {"middle", "top"}) {
    const auto bits = static_cast<unsigned>(random.between(9, 18));
    std::string options = "cluster_size=" + std::to_string(1u << bits);
    if (bits >= 14 && random.chance(40))
      options += ",extended_l2=on";
    else if (random.chance(20))
      options += ",compat=0.10";
    else if (random.chance(20))
      options += ",lazy_refcounts=on";
    run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", options, "-b", below, "-F", format,
            folder / name, std::to_string(size)});
    write_at_random(folder / name, "qcow2", size, random, 8);
    below = name;
    format = "qcow2";
  }
  return folder / "top";
}

void convert(const std::string& from, const std::string& to) {
  run_ok({"qemu-img", "convert", "-f", "qcow2", "-O", "raw", from, to});
}

std::string refused(const std::vector<std::string>& arguments) {
  std::vector<std::string> command{"flatten"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  const auto outcome = run_tool(command);
  INFO(outcome.describe());
  CHECK(outcome.exit_code == 1);
  return outcome.err;
}

}  // namespace

TEST_CASE("an overlay reads the same without its chain", "[flatten]") {
  const uint64_t chains = support::iterations(12);
  for (uint64_t i = 0; i < chains; ++i) {
    const uint64_t seed = support::base_seed() + i;
    CAPTURE(seed);
    Random random(seed);
    const TempDirectory folder;
    const std::string top = make_chain(folder, random, random.between(600, 8000) * 512);
    convert(top, folder / "reference");
    const auto base = support::read_file(folder / "base");
    const auto middle = support::read_file(folder / "middle");

    const bool in_place = random.chance(70);
    const std::string flat = in_place ? top : folder / "flat";
    const auto outcome = in_place ? run_tool({"flatten", "--in-place", "--json", top})
                                  : run_tool({"flatten", "--json", top, flat});
    INFO(outcome.describe());
    REQUIRE(outcome.ok());
    const auto json = nlohmann::json::parse(outcome.out);
    if (in_place) CHECK(json["dropped-backing-filename"] == "middle");

    CHECK((support::read_file(folder / "base") == base));
    CHECK((support::read_file(folder / "middle") == middle));
    fs::remove(folder / "middle");
    fs::remove(folder / "base");
    run_ok({"qemu-img", "check", "-q", "-f", "qcow2", flat});
    run_ok({"qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", flat, folder / "reference"});
    const auto info =
        nlohmann::json::parse(run_ok({"qemu-img", "info", "--output=json", flat}).out);
    CHECK_FALSE(info.contains("backing-filename"));
    CHECK_FALSE(info.contains("backing-filename-format"));
  }
}

TEST_CASE("an overlay whose flattening is killed reads as before, and can be flattened",
          "[flatten]") {
  const uint64_t rounds = support::iterations(6);
  for (uint64_t i = 0; i < rounds; ++i) {
    const uint64_t seed = support::base_seed() + i;
    CAPTURE(seed);
    Random random(seed);
    const TempDirectory folder;
    run_ok({"qemu-img", "create", "-q", "-f", "qcow2", folder / "base", "256M"});
    run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 5 0 160M", folder / "base"});
    run_ok(
        {"qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", folder / "top"});
    write_at_random(folder / "top", "qcow2", 256 << 20, random, 10);
    convert(folder / "top", folder / "reference");
    for (int kills = 0; kills < 3; ++kills) {
      support::Child child({tool_test::virt_compact(), "flatten", "--in-place", folder / "top"},
                           folder / "log");
      std::this_thread::sleep_for(std::chrono::milliseconds(random.below(250)));
      if (random.chance(70))
        child.kill();
      else
        ::kill(child.pid(), SIGINT);
      while (child.running()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
      const auto check = support::run({"qemu-img", "check", "-q", "-f", "qcow2", folder / "top"});
      INFO(check.describe());
      CHECK((check.exit_code == 0 || check.exit_code == 3));
      run_ok({"qemu-img", "compare", "-q", folder / "top", folder / "reference"});
    }
    const auto last = run_tool({"flatten", "--in-place", folder / "top"});
    INFO(last.describe());
    CHECK((last.ok() || last.err.find("nothing to flatten") != std::string::npos));
    fs::remove(folder / "base");
    run_ok({"qemu-img", "compare", "-q", folder / "top", folder / "reference"});
  }
}

TEST_CASE("the name of the backing file is removed in one write", "[flatten]") {
  const TempDirectory folder;
  run_ok({"qemu-img", "create", "-q", "-f", "raw", folder / "base", "1M"});
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", folder / "top"});
  auto bytes = support::read_file(folder / "top");
  // A header that is longer than a sector.
  const bool long_header = GENERATE(false, true);
  if (long_header) {
    auto header = qcow2::Header::read(qcow2::MemoryStorage("top", bytes));
    REQUIRE_OK(header);
    header->extensions.push_back({0x12345678, std::vector<std::byte>(300, std::byte{7})});
    const auto encoded = header->encode();
    REQUIRE_OK(encoded);
    std::copy(encoded->begin(), encoded->end(), bytes.begin());
  }
  test::CrashStorage storage(bytes);
  std::vector<std::vector<std::byte>> crashes;
  storage.crash_at_flushes(crashes, 1);
  REQUIRE_OK(qcow2::drop_backing_name(storage));
  bool before = false, after = false;
  for (const auto& crash : crashes) {
    const auto header = qcow2::Header::read(qcow2::MemoryStorage("top", crash));
    REQUIRE_OK(header);
    (header->backing_file.empty() ? after : before) = true;
    CHECK((header->backing_file.empty() || header->backing_file == "base"));
    CHECK((header->find_extension(0x12345678) != nullptr) == long_header);
  }
  CHECK(before);
  std::mt19937_64 random(1);
  support::write_file(folder / "top", storage.after_crash(random));
  fs::remove(folder / "base");
  run_ok({"qemu-img", "check", "-q", folder / "top"});
  const auto info = run_ok({"qemu-img", "info", folder / "top"});
  CHECK(info.out.find("backing") == std::string::npos);
}

TEST_CASE("compressed data of a chain stays compressed in a fresh image", "[flatten]") {
  const TempDirectory folder;
  support::run_ok({"qemu-img", "create", "-q", "-f", "raw", folder / "raw", "4M"});
  support::run_ok({"qemu-io", "-f", "raw", "-c", "write -q -P 5 0 2M", folder / "raw"});
  support::run_ok(
      {"qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", folder / "raw", folder / "base"});
  support::run_ok(
      {"qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "base", folder / "top"});
  support::run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 6 1M 256k", folder / "top"});
  support::run_ok({tool_test::virt_compact(), "flatten", "-q", folder / "top", folder / "flat"});
  support::run_ok({"qemu-img", "compare", "-q", folder / "top", folder / "flat"});
  const auto checked = support::run_ok({"qemu-img", "check", folder / "flat"});
  // 28 of 32 clusters are compressed.
  CHECK_THAT(checked.out, Catch::Contains("87.50% compressed clusters"));
}

TEST_CASE("a damaged chain is flattened as far as it can be read", "[flatten]") {
  const TempDirectory folder;
  const std::string base = folder / "base", top = folder / "top", flat = folder / "flat";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", base, "4M"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 5 0 2M", base});
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", top});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 6 1M 64k", top});
  convert(top, folder / "reference");
  interop::ImageEditor image(base);
  image.put64(image.l2_entry_at(128 << 10), 0x8000000070000000);
  image.save();

  CHECK_THAT(refused({top, flat}), Contains("copy --salvage copies the readable data"));
  CHECK_THAT(refused({"--in-place", top}), Contains("copy --salvage copies the readable data"));
  CHECK_THAT(refused({"--in-place", "--salvage", top}), Contains("--salvage needs DST"));
  CHECK_THAT(run_ok({"qemu-img", "info", top}).out, Contains("backing file: base"));
  CHECK_FALSE(fs::exists(flat));

  const auto outcome = run_tool({"flatten", "--salvage", top, flat});
  INFO(outcome.describe());
  CHECK(outcome.exit_code == 4);
  CHECK_THAT(outcome.err, Contains("lost: guest offset 0x20000, 65536 bytes"));
  CHECK_THAT(outcome.out, Contains("lost: 64 KiB in 1 range"));
  const auto json = run_tool({"flatten", "--salvage", "--force", "--json", top, flat});
  CHECK(json.exit_code == 4);
  CHECK(nlohmann::json::parse(json.out)["lost-bytes"] == 64 << 10);
  convert(flat, folder / "raw");
  auto expected = support::read_file(folder / "reference");
  std::fill_n(expected.begin() + (128 << 10), 64 << 10, std::byte{0});
  CHECK((support::read_file(folder / "raw") == expected));
  // Nothing is lost of a sound chain.
  CHECK(run_tool({"flatten", "--salvage", flat, folder / "again"}).exit_code == 0);
}

TEST_CASE("an image that cannot be flattened is refused before anything changes", "[flatten]") {
  const TempDirectory folder;
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", folder / "base", "4M"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 5 0 2M", folder / "base"});
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", folder / "top"});
  const std::string top = folder / "top";
  CHECK_THAT(refused({}), Contains("OVERLAY is missing"));
  CHECK_THAT(refused({top}), Contains("DST is missing"));
  CHECK_THAT(refused({"--in-place", top, folder / "x"}), Contains("exclude each other"));
  CHECK_THAT(refused({"--in-place", folder / "base"}), Contains("has no backing file"));
  support::write_file(folder / "raw", std::string(1 << 20, 'x'));
  CHECK_THAT(refused({"--in-place", folder / "raw"}), Contains("raw file"));
  run_ok({"qemu-img", "snapshot", "-c", "s", top});
  const auto bytes = support::read_file(top);
  CHECK_THAT(refused({"--in-place", top}), Contains("1 internal snapshot, which would lose its"));
  CHECK((support::read_file(top) == bytes));
}

TEST_CASE("the bitmaps of an overlay go along, and those of its backing file do not", "[flatten]") {
  const TempDirectory folder;
  const std::string top = folder / "top";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", folder / "base", "4M"});
  run_ok({"qemu-img", "bitmap", "--add", folder / "base", "below"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 3 0 1M", folder / "base"});
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", folder / "base", "-F", "qcow2", top});
  run_ok({"qemu-img", "bitmap", "--add", top, "one"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 4 512k 64k", top});
  const auto expected = support::dirty_sectors(top, "one");
  CHECK_THAT(run_tool({"flatten", "--in-place", "--drop-bitmaps", top}).err,
             Contains("--drop-bitmaps needs DST"));
  const auto kept = run_tool({"flatten", top, folder / "flat"});
  INFO(kept.describe());
  REQUIRE(kept.ok());
  CHECK(kept.err.empty());
  CHECK(support::bitmap_names(folder / "flat") == std::vector<std::string>{"one"});
  CHECK((support::dirty_sectors(folder / "flat", "one") == expected));
  const auto dropped = run_tool({"flatten", "--drop-bitmaps", top, folder / "bare"});
  REQUIRE(dropped.ok());
  CHECK(dropped.err.empty());
  CHECK(support::bitmap_names(folder / "bare").empty());
  const auto salvaged = run_tool({"flatten", "--salvage", top, folder / "salvaged"});
  CHECK_THAT(salvaged.err, Contains("its persistent bitmaps are not copied: a salvage"));
}
