// Compares virt-compact compare with qemu-img compare.

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/catch.h"
#include "tests/interop/image_editor.h"
#include "tests/interop/image_maker.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

namespace {

using support::Outcome;
using support::Random;
using support::TempDirectory;
using tool_test::run_tool;

constexpr uint64_t kSector = 512;

Outcome ours(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "compare");
  return run_tool(arguments);
}

Outcome qemus(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {"qemu-img", "compare"});
  return support::run(arguments);
}

// Requires the same standard output and exit code.
void check_as_qemu(const std::vector<std::string>& arguments) {
  const Outcome mine = ours(arguments);
  const Outcome judge = qemus(arguments);
  INFO(support::shell_line(arguments));
  INFO(mine.describe());
  INFO(judge.describe());
  CHECK(mine.exit_code == judge.exit_code);
  CHECK(mine.out == judge.out);
}

using Ranges = std::vector<std::pair<uint64_t, uint64_t>>;  // start, length

Ranges differences(const std::string& a, const std::string& b) {
  const auto x = support::read_file(a);
  const auto y = support::read_file(b);
  REQUIRE(x.size() == y.size());
  Ranges ranges;
  for (uint64_t at = 0; at < x.size(); at += kSector) {
    const uint64_t length = std::min<uint64_t>(kSector, x.size() - at);
    const auto from = static_cast<ptrdiff_t>(at);
    if (std::equal(x.begin() + from, x.begin() + from + static_cast<ptrdiff_t>(length),
                   y.begin() + from))
      continue;
    if (!ranges.empty() && ranges.back().first + ranges.back().second == at)
      ranges.back().second += length;
    else
      ranges.emplace_back(at, length);
  }
  return ranges;
}

Ranges differences_of(const nlohmann::json& report) {
  Ranges ranges;
  for (const auto& it : report["differences"]) ranges.emplace_back(it["start"], it["length"]);
  return ranges;
}

// Writes random bytes, including zeros, in a few places.
void damage(Random& random, const std::string& raw) {
  const uint64_t size = std::filesystem::file_size(raw);
  for (uint64_t i = random.between(1, 6); i > 0; --i) {
    const uint64_t at = random.below(size);
    std::vector<std::byte> bytes(std::min<uint64_t>(size - at, random.between(1, 200000)));
    if (random.chance(70)) random.fill(bytes);
    support::patch_file(raw, at, bytes);
  }
}

}  // namespace

TEST_CASE("compare agrees with qemu-img compare on random images", "[compare]") {
  const uint64_t seed = support::base_seed();
  for (uint64_t i = 0; i < support::iterations(8); ++i) {
    INFO("VIRT_COMPACT_SEED=" << seed + i);
    Random random(seed + i);
    const TempDirectory folder;
    const auto image = interop::make_image(random, folder.path());
    INFO(image.recipe);
    const std::string raw = image.disks.front().raw;
    check_as_qemu({"-f", "qcow2", "-F", "raw", image.path, raw});
    if (image.huge || image.size == 0) continue;

    const std::string other = raw + ".other";
    std::filesystem::copy_file(raw, other);
    damage(random, other);
    check_as_qemu({"-f", "qcow2", "-F", "raw", image.path, other});
    check_as_qemu({"-F", "qcow2", "-f", "raw", other, image.path});
    const Outcome json = ours({"--json", "-f", "qcow2", "-F", "raw", image.path, other});
    INFO(json.describe());
    const auto report = nlohmann::json::parse(json.out);
    const Ranges expected = differences(raw, other);
    CHECK(differences_of(report) == expected);
    CHECK(report["identical"] == expected.empty());
    CHECK(report["difference-count"] == expected.size());
    CHECK(json.exit_code == (expected.empty() ? 0 : 1));

    const std::string packed = raw + ".packed";
    support::run_ok({"qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", other, packed});
    check_as_qemu({"-f", "qcow2", "-F", "qcow2", image.path, packed});
    const Outcome again = ours({"--json", image.path, packed});
    CHECK(differences_of(nlohmann::json::parse(again.out)) == expected);
  }
}

TEST_CASE("disks of different sizes", "[compare]") {
  const TempDirectory folder;
  const std::string small = folder / "small.raw";
  const std::string large = folder / "large.qcow2";
  std::vector<std::byte> bytes(3 << 20);
  Random(1).fill(bytes);
  support::write_file(small, bytes);
  support::run_ok({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", small, large});
  check_as_qemu({"-f", "raw", "-F", "qcow2", "-s", small, small});
  support::run_ok({"qemu-img", "resize", "-q", large, "9M"});
  check_as_qemu({"-f", "raw", "-F", "qcow2", small, large});
  check_as_qemu({"-F", "raw", "-f", "qcow2", large, small});
  check_as_qemu({"-f", "raw", "-F", "qcow2", "-s", small, large});
  support::run_ok({"qemu-io", "-c", "write -P 9 7M 4k", large});
  check_as_qemu({"-f", "raw", "-F", "qcow2", small, large});
  check_as_qemu({"-q", "-f", "raw", "-F", "qcow2", small, large});
  check_as_qemu({"-F", "raw", "-f", "qcow2", "-U", large, small});
}

TEST_CASE("strict mode compares what is allocated", "[compare]") {
  const TempDirectory folder;
  const std::string a = folder / "a.qcow2";
  const std::string b = folder / "b.qcow2";
  for (const std::string& it : {a, b}) {
    support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", it, "16M"});
    support::run_ok({"qemu-io", "-c", "write -P 5 1M 2M", it});
  }
  check_as_qemu({"-s", a, b});
  support::run_ok({"qemu-io", "-c", "write -P 0 5M 64k", a});
  check_as_qemu({a, b});
  // QEMU 7.2 reports a difference at 3M, where the disks are equal: it also compares a flag for the
  // end of the disk.
  const Outcome strict = ours({"-s", a, b});
  CHECK(strict.exit_code == 1);
  CHECK(strict.out == "Strict mode: Offset 5242880 block status mismatch!\n");
  // An earlier difference is reported first.
  support::run_ok({"qemu-io", "-c", "write -P 6 2M 64k", a});
  check_as_qemu({"-s", a, b});
}

TEST_CASE("errors have qemu-img's exit codes", "[compare]") {
  const TempDirectory folder;
  const std::string plain = folder / "plain.qcow2";
  const std::string packed = folder / "packed.qcow2";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", plain, "4M"});
  support::run_ok({"qemu-io", "-c", "write -P 5 1M 1M", plain});
  support::run_ok({"qemu-img", "convert", "-c", "-O", "qcow2", plain, packed});
  CHECK(ours({plain, folder / "none"}).exit_code == 2);
  const Outcome alone = ours({plain});
  CHECK(alone.exit_code == 2);
  CHECK(alone.err ==
        "virt-compact: error: two disks are needed: A and B\nTry 'virt-compact compare --help'.\n");
  CHECK(ours({plain, "-"}).exit_code == 2);

  interop::ImageEditor stream(packed);
  const uint64_t entry = stream.get64(stream.l2_entry_at(1 << 20));
  const uint64_t at = entry & ((uint64_t{1} << 54) - 1);
  stream.put(at, std::vector<std::byte>(64, std::byte{0xff}));
  stream.save();
  const Outcome unread = ours({plain, packed});
  INFO(unread.describe());
  CHECK(unread.exit_code == 4);
  CHECK(qemus({plain, packed}).exit_code == 4);
  CHECK_THAT(unread.err, Catch::Contains(packed));
  // The report is complete nevertheless.
  const auto report = nlohmann::json::parse(ours({"--json", plain, packed}).out);
  CHECK_THAT(report["error"].get<std::string>(), Catch::Contains(packed));
  // A difference before the damage is found.
  support::run_ok({"qemu-io", "-c", "write -P 5 0 64k", plain});
  CHECK(ours({plain, packed}).exit_code == 1);
  support::run_ok({"qemu-io", "-c", "write -z 0 64k", plain});

  interop::ImageEditor table(plain);
  table.put64(table.l1_entry_at(1 << 20), 0x8000000000000200);
  table.save();
  const Outcome unmapped = ours({plain, packed});
  INFO(unmapped.describe());
  CHECK(unmapped.exit_code == 3);
}

// Writes bytes that compress well, and that show where they were cut.
void put_lines(std::vector<std::byte>& bytes, uint64_t at, uint64_t length) {
  const std::string line = "the same line again and again ";
  for (uint64_t i = 0; i < length; ++i)
    bytes[at + i] = static_cast<std::byte>(line[i % line.size()]);
}

TEST_CASE("neighbouring clusters may have the same compressed stream", "[compare]") {
  const TempDirectory folder;
  const std::string raw = folder / "a.raw";
  const std::string image = folder / "a.qcow2";
  const std::string small = folder / "small.qcow2";
  // With small clusters, a job has many. With the largest, a job has only one.
  for (const uint64_t cluster : {uint64_t{512}, uint64_t{64} << 10, uint64_t{2} << 20}) {
    std::vector<std::byte> bytes(8 << 20);
    put_lines(bytes, 0, cluster);
    support::write_file(raw, bytes);
    support::run_ok({"qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o",
                     fmt::format("cluster_size={}", cluster), raw, image});
    interop::ImageEditor editor(image);
    const uint64_t first = editor.l2_entry_at(0);
    for (const uint64_t i : {1, 2}) {
      editor.put64(first + i * 8, editor.get64(first));
      put_lines(bytes, i * cluster, cluster);
    }
    editor.save();
    support::write_file(raw, bytes);
    CAPTURE(cluster);
    check_as_qemu({image, raw});
    check_as_qemu({raw, image});
    check_as_qemu({image, image});
    CHECK(ours({image, raw}).exit_code == 0);
    // The other disk divides the clusters into pieces.
    support::run_ok({"qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o",
                     "cluster_size=512", raw, small});
    check_as_qemu({image, small});
    CHECK(ours({image, small}).exit_code == 0);
    bytes[cluster + 100] = std::byte{1};
    support::write_file(raw, bytes);
    check_as_qemu({image, raw});
  }
}

TEST_CASE("disks behind NBD are compared, on either side or both", "[compare]") {
  const TempDirectory folder;
  const std::string a = folder / "a.raw";
  const std::string b = folder / "b.raw";
  std::vector<std::byte> bytes(5 << 20);
  Random(2).fill(bytes);
  std::fill(bytes.begin() + (1 << 20), bytes.begin() + (3 << 20), std::byte{0});
  support::write_file(a, bytes);
  support::write_file(b, bytes);
  const std::vector<std::string> server_a = {"[", "nbdkit", "file", a, "]"};
  const std::vector<std::string> server_b = {"[",
                                             "nbdkit",
                                             "file",
                                             b,
                                             "--filter=blocksize-policy",
                                             "blocksize-minimum=4096",
                                             "blocksize-error-policy=error",
                                             "]"};
  const std::vector<std::string> file_b = {b};
  const auto both = [](std::vector<std::string> x, const std::vector<std::string>& y) {
    x.insert(x.end(), y.begin(), y.end());
    x.insert(x.begin(), "--json");
    return ours(x);
  };
  CHECK(both(server_a, server_b).exit_code == 0);
  CHECK(both(server_a, file_b).exit_code == 0);
  support::patch_file(b, 4567890, std::vector<std::byte>(1000, std::byte{1}));
  support::patch_file(b, 2000000, std::vector<std::byte>(1000, std::byte{1}));
  const Ranges expected = differences(a, b);
  for (const auto& second : {server_b, file_b}) {
    const Outcome outcome = both(server_a, second);
    INFO(outcome.describe());
    CHECK(outcome.exit_code == 1);
    CHECK(differences_of(nlohmann::json::parse(outcome.out)) == expected);
  }
}

TEST_CASE("neither data in a common file nor an empty disk of 16 TiB is read", "[compare]") {
  const TempDirectory folder;
  const std::string base = folder / "base.qcow2";
  const std::string top = folder / "top.qcow2";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", base, "16T"});
  support::run_ok({"qemu-io", "-c", "write -P 1 1M 8M", "-c", "write -P 2 15T 1M", base});
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top});
  support::run_ok({"qemu-io", "-c", "write -P 2 15T 64k", "-c", "write -P 3 9T 64k", top});
  const Outcome outcome = ours({"--json", base, top});
  INFO(outcome.describe());
  const auto report = nlohmann::json::parse(outcome.out);
  CHECK(report["compared-bytes"] == 128 << 10);
  CHECK(report["differing-bytes"] == 64 << 10);
  CHECK(report["offset"] == uint64_t{9} << 40);
  CHECK(outcome.peak_memory < 200 << 20);
}
