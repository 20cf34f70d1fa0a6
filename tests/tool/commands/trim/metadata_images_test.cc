// Tests virt-compact trim --metadata on all kinds of images, and its refusals.
#include <filesystem>
#include <functional>

#include "storage/file_storage.h"
#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/tool/commands/trim/small_guest.h"

using namespace vc;

using Catch::Contains;
using nlohmann::json;
using support::run;
using support::run_ok;
using support::TempDirectory;
using tool_test::run_tool;
using trim_test::freed;
using trim_test::SmallGuest;
using trim_test::trim;

namespace {

constexpr uint64_t kMiB = 1 << 20;
// At least a third of the ext4, and nearly all of the swap.
constexpr uint64_t kLeast = 8 * kMiB;

std::string convert(const SmallGuest& guest, const std::string& image,
                    const std::vector<std::string>& options = {}) {
  std::vector<std::string> command{"qemu-img", "convert", "-O", "qcow2"};
  command.insert(command.end(), options.begin(), options.end());
  command.insert(command.end(), {guest.raw(), image});
  run_ok(command);
  return image;
}

std::string space_of(const std::string& path) {
  return run_ok({"du", "-B1", path}).out;
}

json space_in(const std::string& image) {
  const auto outcome = run_tool({"space", "--json", image});
  INFO(outcome.describe());
  REQUIRE(outcome.ok());
  return json::parse(outcome.out)["disks"][0]["free-stored"];
}

}  // namespace

TEST_CASE("a trim by metadata works on images of every kind", "[trim]") {
  const TempDirectory folder;
  const SmallGuest guest(folder);
  const auto options = GENERATE(std::vector<std::string>{}, std::vector<std::string>{"-c"},
                                std::vector<std::string>{"-o", "extended_l2=on,cluster_size=128k"},
                                std::vector<std::string>{"-o", "compat=0.10"},
                                std::vector<std::string>{"-o", "cluster_size=4k"},
                                std::vector<std::string>{"-o", "lazy_refcounts=on"},
                                std::vector<std::string>{"-o", "preallocation=metadata"},
                                std::vector<std::string>{"-c", "-o", "extended_l2=on"});
  CAPTURE(options);
  const std::string image = convert(guest, folder / "image", options);
  const uint64_t length = std::filesystem::file_size(image);
  const json predicted = trim({"--dry-run", image});
  const json report = trim({image});
  CAPTURE(report.dump(1));
  CHECK(freed(report) == freed(predicted));
  CHECK(freed(report) > kLeast);
  const json& disk = report["disks"][0];
  CHECK(disk["after"]["blocks"].get<uint64_t>() + kLeast / 4 <
        disk["before"]["blocks"].get<uint64_t>());
  // Compressed clusters do not move.
  const bool compressed = !options.empty() && options.front() == "-c";
  if (!compressed) CHECK(std::filesystem::file_size(image) < length);
  CHECK(guest.complaint_of_image(image) == "");
  CHECK(freed(trim({image})) == 0);
  CHECK(guest.complaint_of_image(image) == "");
}

TEST_CASE("subclusters are deallocated, and their cluster when all of them are free", "[trim]") {
  const TempDirectory folder;
  const SmallGuest guest(folder);
  const std::string image =
      convert(guest, folder / "image", {"-o", "extended_l2=on,cluster_size=2M"});
  const std::string coarse = convert(guest, folder / "coarse", {"-o", "cluster_size=2M"});
  CHECK(freed(trim({image})) > freed(trim({coarse})) + kMiB / 2);
  CHECK(guest.complaint_of_image(image) == "");
  CHECK(guest.complaint_of_image(coarse) == "");
}

TEST_CASE("a trim by metadata of a raw file keeps its length", "[trim]") {
  const TempDirectory folder;
  const SmallGuest guest(folder);
  const std::string disk = folder / "disk";
  std::filesystem::copy_file(guest.raw(), disk);
  const uint64_t before = space_in(disk);
  const json report = trim({"-f", "raw", disk});
  CHECK(freed(report) > kLeast);
  CHECK(freed(report) <= before);
  CHECK(std::filesystem::file_size(disk) == SmallGuest::kSize);
  const json& told = report["disks"][0];
  CHECK(told["after"]["blocks"].get<uint64_t>() + kLeast <=
        told["before"]["blocks"].get<uint64_t>());
  CHECK(guest.complaint(disk) == "");
  CHECK(freed(trim({"-f", "raw", disk})) == 0);
}

TEST_CASE("a trim by metadata covers an external data file", "[trim]") {
  const TempDirectory folder;
  const SmallGuest guest(folder);
  const std::string raw = GENERATE("on", "off");
  CAPTURE(raw);
  const std::string data = folder / "data", image = folder / "image";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o",
          "data_file=" + data + ",data_file_raw=" + raw, image, std::to_string(SmallGuest::kSize)});
  run_ok({"qemu-img", "convert", "-n", "-O", "qcow2", guest.raw(), image});
  const std::string before = space_of(data);
  CHECK(freed(trim({image})) > kLeast);
  CHECK(space_of(data) != before);
  CHECK(guest.complaint_of_image(image) == "");
  if (raw == "on") CHECK(guest.complaint(data) == "");
  CHECK(freed(trim({image})) == 0);
}

TEST_CASE("free clusters of an overlay do not read as data of the backing file", "[trim]") {
  const TempDirectory folder;
  const SmallGuest guest(folder);
  const std::string base = convert(guest, folder / "base"), top = folder / "top";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top});
  // The swap partition was written in the overlay.
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 7 18M 1M", top});
  const auto backing = support::read_file(base);
  const auto outcome = run_tool({"trim", "--metadata", top});
  CAPTURE(outcome.describe());
  CHECK(outcome.ok());
  CHECK_THAT(outcome.err, Contains("space in its backing file"));
  CHECK(support::read_file(base) == backing);
  CHECK(guest.complaint_of_image(top) == "");
  const std::string raw = folder / "top.raw";
  run_ok({"qemu-img", "convert", "-O", "raw", top, raw});
  CHECK_FALSE(support::RawFile(raw).first_nonzero(18 * kMiB, kMiB).has_value());
  CHECK_FALSE(support::RawFile(raw).first_nonzero(SmallGuest::kSwapAt + (64 << 10), kMiB / 2));
  CHECK(freed(trim({top})) == 0);

  // Version 2 has no zero clusters.
  const std::string old = folder / "old";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "compat=0.10", "-b", base, "-F", "qcow2",
          old});
  const auto before = support::read_file(old);
  const auto refused = run_tool({"trim", "--metadata", old});
  CHECK(refused.exit_code == 1);
  CHECK_THAT(refused.err, Contains("version 2") && Contains("flatten"));
  CHECK(support::read_file(old) == before);
  // The backing file of an overlay is not trimmed.
  CHECK_THAT(run_tool({"trim", "--metadata", base}).err, Contains("is the backing file of"));
}

TEST_CASE("internal snapshots keep the data that they share with the disk", "[trim]") {
  const TempDirectory folder;
  const SmallGuest guest(folder);
  const std::string image = convert(guest, folder / "image"), old = folder / "old";
  run_ok({"qemu-img", "snapshot", "-c", "before", image});
  const auto outcome = run_tool({"trim", "--metadata", image});
  CHECK(outcome.ok());
  CHECK_THAT(outcome.err, Contains("an internal snapshot may keep"));
  CHECK(guest.complaint_of_image(image) == "");
  run_ok({"qemu-img", "convert", "-l", "snapshot.name=before", "-O", "raw", image, old});
  CHECK_FALSE(support::first_difference(old, guest.raw()).has_value());
}

TEST_CASE("filesystems are chosen by name", "[trim]") {
  const TempDirectory folder;
  const SmallGuest guest(folder);
  const std::string image = convert(guest, folder / "image");
  json report = trim({"--dry-run", "--ignore", "LABEL=system", image});
  CHECK(report["filesystems"][0]["outcome"] == "left-alone");
  CHECK(report["filesystems"][0]["why"] == "excluded by --filesystems or --ignore");
  CHECK(report["filesystems"][1]["outcome"] == "discarded");
  report = trim({"--filesystems", "sda1", image});
  CHECK(report["filesystems"][0]["outcome"] == "trimmed");
  CHECK(report["filesystems"][1]["freed"].is_null());
  CHECK(report["filesystems"][2]["outcome"] == "left-alone");
  CHECK(report["filesystems"][2]["why"] == "its content is unknown");
  CHECK(guest.complaint_of_image(image) == "");
  const auto wrong = run_tool({"trim", "--metadata", "--ignore", "/dev/sdb", image});
  CHECK(wrong.exit_code == 1);
  CHECK_THAT(wrong.err, Contains("there is no such filesystem"));
  CHECK(run_tool({"-q", "trim", "--metadata", image}).out.empty());
}

TEST_CASE("a guest that is suspended is not trimmed", "[trim]") {
  const TempDirectory folder;
  const SmallGuest guest(folder);
  support::patch_file(guest.raw(), SmallGuest::kSwapAt + 4096 - 10,
                      std::as_bytes(std::span("S1SUSPEND", 10)));
  const std::string image = convert(guest, folder / "image");
  const auto before = support::read_file(image);
  for (const std::vector<std::string>& more :
       {std::vector<std::string>{}, {"--dry-run"}, {"--filesystems", "/dev/sda1"}}) {
    std::vector<std::string> words{"trim", "--metadata", image};
    words.insert(words.end(), more.begin(), more.end());
    const auto outcome = run_tool(words);
    CAPTURE(outcome.describe());
    CHECK(outcome.exit_code == 1);
    CHECK_THAT(outcome.err, Contains("/dev/sda2: a session is saved in it") &&
                                Contains("boot it and shut it down"));
  }
  CHECK(support::read_file(image) == before);
}

TEST_CASE("a disk in use is not trimmed, and a damaged partition table is reported", "[trim]") {
  const TempDirectory folder;
  const SmallGuest guest(folder);
  const std::string image = convert(guest, folder / "image");
  {
    const auto user = FileStorage::open_readonly(image);
    REQUIRE(user);
    REQUIRE((*user)->lock(ImageClaim::reading(), ""));
    const auto outcome = run_tool({"trim", "--metadata", image});
    CHECK(outcome.exit_code == 1);
    CHECK_THAT(outcome.err, Contains("in use"));
    CHECK(trim({"--dry-run", image})["dry-run"] == true);
  }
  // Makes two partitions overlap.
  support::patch_file(guest.raw(), 446 + 16 + 8, std::as_bytes(std::span("\0\x10\0\0", 4)));
  const std::string damaged = convert(guest, folder / "damaged");
  const auto outcome = run_tool({"trim", "--metadata", damaged});
  CAPTURE(outcome.describe());
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err, Contains("overlap") && Contains("this disk is not trimmed"));
}

TEST_CASE("options that need the appliance are refused with --metadata", "[trim]") {
  using Words = std::vector<std::string>;
  for (const Words& more : {Words{"--key", "all:key:x"}, Words{"--drop", "swap"},
                            Words{"--sector-size", "512"}, Words{"--timeout", "3"}}) {
    Words words{"trim", "--metadata", "/nowhere"};
    words.insert(words.end(), more.begin(), more.end());
    const auto outcome = run_tool(words);
    CAPTURE(outcome.describe());
    CHECK(outcome.exit_code == 1);
    CHECK_THAT(outcome.err, Contains(more[0] + " and --metadata"));
  }
  const auto remote = run_tool({"trim", "--metadata", "nbd://localhost"});
  CHECK(remote.exit_code == 1);
  CHECK_THAT(remote.err, Contains("is not a local file"));
}

TEST_CASE("a killed trim leaves a valid image with all files", "[trim]") {
  const TempDirectory folder;
  const SmallGuest guest(folder);
  const std::string whole = convert(guest, folder / "whole", {"-o", "cluster_size=4k"});
  const std::string image = folder / "image";
  support::Random random(support::base_seed());
  unsigned killed = 0;
  for (uint64_t i = 0; i < support::iterations(12); ++i) {
    std::filesystem::copy_file(whole, image, std::filesystem::copy_options::overwrite_existing);
    const std::string after = "0." + std::to_string(1000 + random.below(250)).substr(1);
    CAPTURE(after);
    const auto outcome = run({"timeout", "-s", "KILL", after, tool_test::virt_compact(), "trim",
                              "--metadata", "-q", image});
    if (!outcome.ok()) ++killed;
    const auto check = run({"qemu-img", "check", image});
    CAPTURE(check.describe());
    // A crash may leave leaked clusters.
    CHECK((check.ok() || check.exit_code == 3));
    CHECK(guest.complaint_of_image(image, false) == "");
    CHECK(freed(trim({"--dry-run", image})) <= freed(trim({"--dry-run", whole})));
    // The next run continues.
    trim({image});
    CHECK(freed(trim({image})) == 0);
    CHECK(guest.complaint_of_image(image, false) == "");
  }
  WARN("killed " << killed << " times");
}
