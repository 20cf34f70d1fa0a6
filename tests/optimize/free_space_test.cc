// Tests optimize with the metadata of the guest's filesystems, and without an appliance.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/catch_text.h"
#include "tests/guest/image_file.h"
#include "tests/guest/lived_in_volume.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using Catch::Contains;
using guest_test::Kind;
using guest_test::LivedInVolume;
using nlohmann::json;
using support::run_ok;
using support::TempDirectory;

namespace fs = std::filesystem;

namespace {

constexpr uint64_t kMiB = 1 << 20;
using Words = std::vector<std::string>;

// Replaces QEMU. Creates a file when an appliance would boot.
class NoQemu {
 public:
  NoQemu() {
    support::write_file(path(), "#!/bin/sh\ntouch '" + mark() + "'\nexit 1\n");
    fs::permissions(path(), fs::perms(0755));
  }
  bool was_started() const { return fs::exists(mark()); }
  support::RunOptions options() const {
    support::RunOptions options;
    options.environment = {"LIBGUESTFS_HV=" + path(), "LIBGUESTFS_BACKEND=direct"};
    return options;
  }

 private:
  std::string path() const { return folder_ / "qemu"; }
  std::string mark() const { return folder_ / "started"; }

  const TempDirectory folder_;
};

support::Outcome optimize(const NoQemu& qemu, Words arguments) {
  arguments.insert(arguments.begin(), "optimize");
  return tool_test::run_tool(std::move(arguments), qemu.options());
}

// Returns the report on the only disk. The run must not boot anything.
json report(Words arguments) {
  const NoQemu qemu;
  arguments.insert(arguments.begin(), "--json");
  const auto outcome = optimize(qemu, std::move(arguments));
  INFO(outcome.describe());
  REQUIRE(outcome.ok());
  CHECK_FALSE(qemu.was_started());
  return json::parse(outcome.out).at("disks").at(0);
}

std::string refused(Words arguments) {
  const NoQemu qemu;
  const auto outcome = optimize(qemu, std::move(arguments));
  INFO(outcome.describe());
  CHECK(outcome.exit_code == 1);
  CHECK_FALSE(qemu.was_started());
  return outcome.err;
}

std::string qcow2_of(const TempDirectory& folder, const std::string& raw) {
  run_ok({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, folder / "disk"});
  return folder / "disk";
}

json filesystem(const json& report, const std::string& device) {
  for (const json& it : report.at("free-space").at("filesystems"))
    if (it.at("device") == device) return it;
  FAIL("no " << device << " in " << report.dump());
  return report;
}

bool is_zero(const std::vector<std::byte>& bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte it) { return it == std::byte{0}; });
}

// Compares raw disks: `after` must have zeros in `unused`, and the bytes of `before` elsewhere.
// Returns the problem.
std::string difference(const std::string& before, const std::string& after,
                       const guest::Ranges& unused) {
  const support::RawFile old(before);
  const support::RawFile fresh(after);
  if (old.size() != fresh.size()) return "the size";
  const auto used = guest::one_range(0, old.size()).without(unused);
  for (const auto& range : used.all())
    for (uint64_t at = range.begin; at < range.end; at += kMiB) {
      const uint64_t length = std::min(kMiB, range.end - at);
      if (old.read(at, length) != fresh.read(at, length))
        return fmt::format("what is used, from {:#x} on", at);
    }
  for (const auto& range : unused.all())
    for (uint64_t at = range.begin; at < range.end; at += kMiB) {
      // Shorter ranges may be copied.
      if (range.length() < 4096) continue;
      if (!is_zero(fresh.read(at, std::min(kMiB, range.end - at))))
        return fmt::format("what is not used, from {:#x} on", at);
    }
  return {};
}

void leaves_out_what_is_free(const Kind& kind) {
  if (const std::string why = guest_test::why_no_volume(kind); !why.empty()) {
    WARN(kind.name << ": not tried: " << why);
    return;
  }
  const uint64_t seed = support::base_seed();
  INFO(kind.name << ", VIRT_COMPACT_SEED=" << seed);
  support::Random random(seed);
  LivedInVolume lived_in(kind, random);
  const auto free = guest_test::inspect_files({lived_in.path()}).free_on(0);
  REQUIRE(free.total() > 0);
  const TempDirectory folder;
  // All free space is stored in the image.
  const std::string disk = qcow2_of(folder, lived_in.copy_with_garbage(free));
  const json done = report({"--trim=metadata", "-o", folder / "out", disk});
  const json& volume = filesystem(done, "/dev/sda");
  CHECK(volume.at("way") == "metadata");
  CHECK(volume.at("free") == free.total());
  CHECK(volume.at("stored") == free.total());
  CHECK(done.at("free-space").at("appliance") == false);
  CHECK_FALSE(done.contains("trim"));
  run_ok({"qemu-img", "check", "-q", folder / "out"});
  run_ok({"qemu-img", "convert", "-O", "raw", folder / "out", folder / "out.raw"});
  CHECK(difference(lived_in.path(), folder / "out.raw", free) == "");
  CHECK(lived_in.complaint(folder / "out.raw") == "");
  CHECK(lived_in.complaint_after_use(folder / "out.raw") == "");
  CHECK(fs::file_size(folder / "out") + free.total() * 9 / 10 < fs::file_size(disk));
}

Kind ext4() {
  return {"ext4", 120 * kMiB, {"mke2fs", "-q", "-F", "-t", "ext4"}, {"e2fsck", "-f", "-n"}, "ext4"};
}
Kind xfs() {
  return {"xfs", 320 * kMiB, {"mkfs.xfs", "-q", "-f"}, {"xfs_repair", "-n", "-f"}, "xfs", "nouuid"};
}
Kind ntfs() {
  return {"NTFS", 120 * kMiB, {"mkntfs", "-q", "-Q", "-F"}, {"ntfsfix", "-n"}, "ntfs"};
}

// Writes a file with `size` random bytes.
void write_noise(const std::string& path, uint64_t size) {
  support::Random random(5);
  std::vector<std::byte> bytes(size);
  random.fill(bytes);
  support::write_file(path, bytes);
}

// Makes an ext4 with a file of random data and a deleted one.
void make_ext4(const std::string& path, uint64_t size, uint64_t kept, uint64_t gone,
               const Words& options = {}) {
  const TempDirectory scratch;
  fs::create_directory(scratch / "tree");
  write_noise(scratch / "tree/kept", kept);
  write_noise(scratch / "tree/gone", gone);
  Words command{"mke2fs", "-q", "-F", "-t", "ext4", "-d", scratch / "tree"};
  command.insert(command.end(), options.begin(), options.end());
  command.insert(command.end(), {path, std::to_string(size >> 10) + "k"});
  run_ok(command);
  run_ok({"debugfs", "-w", "-R", "rm gone", path});
}

// Marks the journal as not replayed.
void make_dirty(const std::string& ext4, uint64_t at = 0) {
  const auto incompat = support::RawFile(ext4).read(at + 1024 + 0x60, 1)[0];
  const std::byte dirty = incompat | std::byte{4};
  support::patch_file(ext4, at + 1024 + 0x60, std::span(&dirty, 1));
}

// Partitions: 1 ext4 labelled "root", 2 ext4 with an unreplayed journal, 3 swap, 4 unknown content.
class Partitioned {
 public:
  explicit Partitioned(uint64_t kept_in_dirty) {
    const TempDirectory scratch;
    support::write_file(raw(), std::string());
    support::resize_file(raw(), kDisk);
    run_ok({"sh", "-c",
            "printf 'label: gpt\nstart=1MiB,size=64MiB\nstart=65MiB,size=160MiB\n"
            "start=225MiB,size=16MiB\nstart=241MiB,size=8MiB\n' | sfdisk -q \"$1\"",
            "sh", raw()});
    make_ext4(scratch / "root", 64 * kMiB, 3 * kMiB, 20 * kMiB, {"-L", "root"});
    make_ext4(scratch / "dirty", 160 * kMiB, kept_in_dirty, 5 * kMiB, {"-O", "^metadata_csum"});
    make_dirty(scratch / "dirty");
    write_noise(scratch / "swap", 16 * kMiB);
    run_ok({"mkswap", "-q", "-L", "swap", scratch / "swap"});
    write_noise(scratch / "noise", 8 * kMiB);
    put(scratch / "root", 1);
    put(scratch / "dirty", 65);
    put(scratch / "swap", 225);
    put(scratch / "noise", 241);
    run_ok({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw(), disk()});
  }

  std::string raw() const { return folder_ / "raw"; }
  std::string disk() const { return folder_ / "disk"; }
  const TempDirectory& folder() const { return folder_; }

 private:
  static constexpr uint64_t kDisk = 256 * kMiB;

  void put(const std::string& from, uint64_t mebibytes) const {
    run_ok({"dd", "if=" + from, "of=" + raw(), "bs=1M", "conv=notrunc,sparse", "status=none",
            fmt::format("seek={}", mebibytes)});
  }

  const TempDirectory folder_;
};

}  // namespace

TEST_CASE("free space is not copied, and the files are unchanged", "[free]") {
  leaves_out_what_is_free(ext4());
  leaves_out_what_is_free(xfs());
  leaves_out_what_is_free(ntfs());
}

TEST_CASE("a disk is compact only if it stores little free space", "[free]") {
  const TempDirectory folder;
  make_ext4(folder / "raw", 64 * kMiB, 4 * kMiB, 30 * kMiB);
  const std::string disk = qcow2_of(folder, folder / "raw");
  const json dry = report({"--dry-run", disk});
  CHECK(dry.at("already-compact") == false);
  CHECK(dry.at("estimate").at("saved") > 25 * kMiB);
  CHECK(filesystem(dry, "/dev/sda").at("stored") > 29 * kMiB);
  CHECK(report({disk}).at("already-compact") == false);
  CHECK(fs::file_size(disk) < 8 * kMiB);
  const json again = report({"--backup", ".again", disk});
  CHECK(again.at("already-compact") == true);
  // Clusters that also hold used data stay allocated.
  CHECK(filesystem(again, "/dev/sda").at("stored") < kMiB);
}

TEST_CASE("a disk without filesystems causes a warning, unless it has no data", "[free]") {
  const TempDirectory folder;
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", folder / "disk", "64M"});
  const NoQemu qemu;
  const auto blank = optimize(qemu, {"-o", folder / "out", folder / "disk"});
  INFO(blank.describe());
  REQUIRE(blank.ok());
  CHECK(blank.err.empty());
  run_ok({"qemu-io", "-c", "write -q -P 1 0 1M", folder / "disk"});
  const auto data = optimize(qemu, {"--force", "-o", folder / "out", folder / "disk"});
  INFO(data.describe());
  REQUIRE(data.ok());
  CHECK_THAT(data.err, Contains("nothing was trimmed, so all data is copied: no known filesystem"));
  CHECK_FALSE(qemu.was_started());
}

TEST_CASE("free space does not read as data of a kept backing file", "[free]") {
  const TempDirectory folder;
  make_ext4(folder / "raw", 64 * kMiB, 4 * kMiB, 30 * kMiB);
  const auto free = guest_test::inspect_files({folder / "raw"}).free_on(0);
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", folder / "raw",
          folder / "disk"});
  // This range was in the deleted file.
  const auto largest =
      *std::max_element(free.all().begin(), free.all().end(),
                        [](const auto& a, const auto& b) { return a.length() < b.length(); });
  run_ok(
      {"qemu-io", "-c", fmt::format("write -q -P 7 {} 1M", largest.begin + kMiB), folder / "disk"});
  report({"-B", folder / "raw", "-F", "raw", "-o", folder / "out", folder / "disk"});
  run_ok({"qemu-img", "convert", "-O", "raw", folder / "out", folder / "out.raw"});
  run_ok({"e2fsck", "-fn", folder / "out.raw"});
  CHECK(is_zero(support::RawFile(folder / "out.raw").read(largest.begin + kMiB, kMiB)));
}

TEST_CASE("volumes that are unknown, excluded, or not worth a boot are copied completely",
          "[free]") {
  const Partitioned guest(2 * kMiB);
  const json done = report({"--ignore", "LABEL=swap", "-o", guest.folder() / "out", guest.disk()});
  CHECK(done.at("free-space").at("why") == "the space that it could free is not worth a boot");
  CHECK(filesystem(done, "/dev/sda1").at("way") == "metadata");
  const json& dirty = filesystem(done, "/dev/sda2");
  CHECK(dirty.at("way") == "whole");
  CHECK_THAT(std::string(dirty.at("why")),
             Contains("journal must be replayed") && Contains("not worth booting"));
  CHECK(dirty.at("free").is_null());
  CHECK(dirty.at("stored") > 2 * kMiB);
  CHECK(filesystem(done, "/dev/sda3").at("why") == "excluded by --filesystems or --ignore");
  CHECK(filesystem(done, "/dev/sda4").at("why") == "its content is unknown");
  CHECK(done.at("steps").at(1).at("name") == "free space");

  run_ok({"qemu-img", "convert", "-O", "raw", guest.folder() / "out", guest.folder() / "out.raw"});
  // Only the first filesystem counts.
  const auto inspection = guest_test::inspect_files({guest.raw()});
  CHECK(difference(guest.raw(), guest.folder() / "out.raw",
                   inspection.volumes.at(0).on_disks.at(0)) == "");
}

TEST_CASE("names of libguestfs, labels and UUIDs are accepted, and unknown names are errors",
          "[free]") {
  const Partitioned guest(2 * kMiB);
  const std::string out = guest.folder() / "out";
  const json one = report(
      {"--trim=metadata", "--filesystems", "LABEL=root", "--dry-run", "-o", out, guest.disk()});
  CHECK(filesystem(one, "/dev/sda1").at("way") == "metadata");
  CHECK(filesystem(one, "/dev/sda2").at("why") == "excluded by --filesystems or --ignore");
  CHECK(filesystem(one, "/dev/sda3").at("why") == "excluded by --filesystems or --ignore");
  const std::string uuid = filesystem(one, "/dev/sda1").at("uuid");
  const json other = report(
      {"--trim=metadata", "--ignore", "sda3,UUID=" + uuid, "--dry-run", "-o", out, guest.disk()});
  CHECK(filesystem(other, "/dev/sda1").at("why") == "excluded by --filesystems or --ignore");
  CHECK(filesystem(other, "/dev/sda3").at("why") == "excluded by --filesystems or --ignore");
  CHECK(filesystem(other, "/dev/sda2").at("way") == "whole");
  CHECK_THAT(refused({"--trim=metadata", "--ignore", "/dev/sda9", "-o", out, guest.disk()}),
             Contains("'/dev/sda9': there is no such filesystem"));
}

TEST_CASE("the appliance boots if metadata are not trusted and there is enough data", "[free]") {
  const Partitioned guest(80 * kMiB);
  const NoQemu qemu;
  const auto outcome = optimize(qemu, {"-o", guest.folder() / "out", guest.disk()});
  INFO(outcome.describe());
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.out, Contains("/dev/sda2 (ext4): needs the appliance") &&
                              Contains("/dev/sda4: is copied completely"));
  CHECK_THAT(outcome.err, Contains("the libguestfs appliance does not start"));
  CHECK(support::list_directory(guest.folder().path()) == Words{"disk", "raw"});
  // --trim=metadata never boots. With --keep-going, known free space is still omitted.
  const json whole = report({"--trim=metadata", "-o", guest.folder() / "out", guest.disk()});
  CHECK(filesystem(whole, "/dev/sda2").at("way") == "whole");
  const auto kept =
      optimize(qemu, {"--json", "--keep-going", "-o", guest.folder() / "kept", guest.disk()});
  INFO(kept.describe());
  REQUIRE(kept.ok());
  // The data before the doubtful volume is copied while the appliance would boot.
  CHECK_THAT(kept.out, Contains("\"early copy\""));
  CHECK_THAT(kept.err, Contains("the guest is not trimmed"));
  run_ok({"qemu-img", "compare", "-q", guest.folder() / "out", guest.folder() / "kept"});
}

TEST_CASE("keys, and files that only the appliance can drop, need a boot", "[free]") {
  const TempDirectory folder;
  make_ext4(folder / "raw", 64 * kMiB, 4 * kMiB, 30 * kMiB);
  for (const uint64_t at : {uint64_t{40}, uint64_t{41}})
    CHECK(is_zero(support::RawFile(folder / "raw").read(at, 1)));
  const std::string disk = qcow2_of(folder, folder / "raw");
  const NoQemu qemu;
  // No volume is or may be encrypted.
  CHECK(report({"--key", "all:key:x", "--dry-run", disk}).at("free-space").at("appliance") ==
        false);
  write_noise(folder / "luks", 8 * kMiB);
  support::patch_file(folder / "luks", 0, std::as_bytes(std::span("LUKS\xba\xbe\0\2", 8)));
  const TempDirectory other;
  const std::string encrypted = qcow2_of(other, folder / "luks");
  const json without = report({"--dry-run", encrypted});
  CHECK(filesystem(without, "/dev/sda").at("why") == "it is encrypted");
  CHECK(without.at("free-space").at("nothing") == "/dev/sda: it is encrypted");
  CHECK_FALSE(optimize(qemu, {"--key", "all:key:x", "--dry-run", encrypted}).ok());
  CHECK(qemu.was_started());
  CHECK_THAT(refused({"--trim=metadata", "--key", "all:key:x", disk}),
             Contains("which --trim=metadata does not boot"));
  CHECK_THAT(refused({"--trim=none", "--drop", "swap", disk}),
             Contains("have no effect with --trim=none"));
  CHECK_THAT(refused({"--trim=never", disk}), Contains("not one of: auto, metadata, appliance"));
}

TEST_CASE("a guest that is suspended or hibernated is refused", "[free]") {
  const TempDirectory folder;
  SECTION("Linux") {
    run_ok({"sh", "-c", "truncate -s 16M \"$1\" && mkswap -q \"$1\"", "sh", folder / "raw"});
    support::patch_file(folder / "raw", 4086, std::as_bytes(std::span("S1SUSPEND\0", 10)));
    const std::string disk = qcow2_of(folder, folder / "raw");
    CHECK_THAT(refused({disk}), Contains("/dev/sda: the guest is suspended to disk"));
    CHECK_THAT(refused({"--ignore", "/dev/sda", disk}), Contains("the guest is suspended to disk"));
    CHECK_THAT(refused({"--trim=metadata", "--drop", "swap", disk}),
               Contains("only the appliance can discard"));
    // --keep-going copies the whole disk.
    const json kept = report({"--keep-going", "-o", folder / "out", disk}).at("free-space");
    CHECK(kept.at("filesystems").empty());
    CHECK_THAT(std::string(kept.at("nothing")), Contains("the guest is suspended to disk"));
    run_ok({"qemu-img", "compare", "-q", folder / "out", disk});
  }
  SECTION("Windows") {
    run_ok({"sh", "-c", "truncate -s 32M \"$1\" && mkntfs -q -Q -F \"$1\"", "sh", folder / "raw"});
    std::vector<std::byte> session(64 << 10, std::byte{'h'});
    support::write_file(folder / "hiberfil", session);
    run_ok({"ntfscp", "-q", folder / "raw", folder / "hiberfil", "hiberfil.sys"});
    const std::string disk = qcow2_of(folder, folder / "raw");
    CHECK_THAT(refused({disk}), Contains("/dev/sda: Windows is hibernated"));
    // Windows's session concerns no other volume here.
    CHECK(filesystem(report({"--ignore", "/dev/sda", "-o", folder / "out", disk}), "/dev/sda")
              .at("why") == "excluded by --filesystems or --ignore");
  }
}

TEST_CASE("files that Windows creates again become zeros without a boot", "[free]") {
  const TempDirectory folder;
  run_ok({"sh", "-c", "truncate -s 96M \"$1\" && mkntfs -q -Q -F \"$1\"", "sh", folder / "raw"});
  write_noise(folder / "noise", 8 * kMiB);
  write_noise(folder / "kept", 3 * kMiB + 17);
  for (const char* const name : {"pagefile.sys", "swapfile.sys"})
    run_ok({"ntfscp", "-q", folder / "raw", folder / "noise", name});
  // A hibernation file without a saved session.
  support::patch_file(folder / "noise", 0, std::vector<std::byte>(4096));
  run_ok({"ntfscp", "-q", folder / "raw", folder / "noise", "hiberfil.sys"});
  run_ok({"ntfscp", "-q", folder / "raw", folder / "kept", "kept"});
  const std::string disk = qcow2_of(folder, folder / "raw");
  const auto zeros = std::string(8 * kMiB, '\0');

  const json done = report({"--drop", "pagefile,hiberfile", "-o", folder / "out", disk});
  const json& dropped = done.at("free-space").at("dropped");
  REQUIRE(dropped.size() == 2);
  CHECK(dropped.at(0).at("path") == "/pagefile.sys");
  CHECK(dropped.at(1).at("path") == "/hiberfil.sys");
  CHECK(dropped.at(0).at("size") == 8 * kMiB);
  run_ok({"qemu-img", "convert", "-O", "raw", folder / "out", folder / "out.raw"});
  CHECK((run_ok({"ntfscat", folder / "out.raw", "pagefile.sys"}).out == zeros));
  CHECK((run_ok({"ntfscat", folder / "out.raw", "hiberfil.sys"}).out == zeros));
  for (const char* const name : {"kept", "swapfile.sys"})
    CHECK((run_ok({"ntfscat", folder / "out.raw", name}).out ==
           run_ok({"ntfscat", folder / "raw", name}).out));
  run_ok({"ntfsfix", "-n", folder / "out.raw"});
  CHECK(fs::file_size(folder / "out") + 15 * kMiB < fs::file_size(disk));
}

TEST_CASE("contents of swap files become zeros without a boot", "[free]") {
  const TempDirectory folder;
  fs::create_directory(folder / "tree");
  write_noise(folder / "tree/swapfile", 16 * kMiB);
  run_ok({"mkswap", "-q", folder / "tree/swapfile"});
  write_noise(folder / "tree/kept", 3 * kMiB);
  run_ok(
      {"mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", folder / "tree", folder / "raw", "64M"});
  const std::string disk = qcow2_of(folder, folder / "raw");
  const json done = report({"--drop", "swap", "-o", folder / "out", disk});
  REQUIRE(done.at("free-space").at("dropped").size() == 1);
  CHECK(done.at("free-space").at("dropped").at(0).at("path") == "/swapfile");
  run_ok({"qemu-img", "convert", "-O", "raw", folder / "out", folder / "out.raw"});
  run_ok({"e2fsck", "-fn", folder / "out.raw"});
  for (const char* const name : {"swapfile", "kept"})
    run_ok(
        {"debugfs", "-R", std::string("dump ") + name + " " + (folder / name), folder / "out.raw"});
  CHECK(support::read_file(folder / "kept") == support::read_file(folder / "tree/kept"));
  auto expected = support::read_file(folder / "tree/swapfile");
  std::fill(expected.begin() + (64 << 10), expected.end(), std::byte{0});
  CHECK((support::read_file(folder / "swapfile") == expected));
  CHECK(fs::file_size(folder / "out") + 15 * kMiB < fs::file_size(disk));
}

TEST_CASE("contents of swap files of XFS become zeros without a boot", "[free]") {
  const TempDirectory folder;
  write_noise(folder / "swap", 16 * kMiB);
  run_ok({"mkswap", "-q", folder / "swap"});
  support::write_file(folder / "protofile",
                      "/boot\n0 0\nd--755 0 0\nswapfile ---600 0 0 " + folder / "swap" + "\n$\n");
  run_ok({"sh", "-c", "truncate -s 320M \"$1\" && mkfs.xfs -q -p \"$2\" \"$1\"", "sh",
          folder / "raw", folder / "protofile"});
  const std::string disk = qcow2_of(folder, folder / "raw");
  const json done = report({"--drop", "swap", "-o", folder / "out", disk});
  REQUIRE(done.at("free-space").at("dropped").size() == 1);
  CHECK(done.at("free-space").at("dropped").at(0).at("path") == "/swapfile");
  CHECK(done.at("free-space").at("not-dropped").empty());
  run_ok({"qemu-img", "convert", "-O", "raw", folder / "out", folder / "out.raw"});
  run_ok({"xfs_repair", "-n", "-f", folder / "out.raw"});
  CHECK(fs::file_size(folder / "out") + 15 * kMiB < fs::file_size(disk));
}

TEST_CASE("files that only the appliance can drop are reported", "[free]") {
  const TempDirectory folder;
  run_ok({"sh", "-c", "truncate -s 128M \"$1\" && mkfs.btrfs -q \"$1\"", "sh", folder / "raw"});
  const std::string disk = qcow2_of(folder, folder / "raw");
  const NoQemu qemu;
  const auto outcome = optimize(qemu, {"--drop", "swap", "-o", folder / "out", disk});
  INFO(outcome.describe());
  CHECK(outcome.exit_code == 1);
  CHECK(qemu.was_started());
  const json done = report({"--trim=metadata", "--drop", "swap", "-o", folder / "out", disk});
  CHECK(filesystem(done, "/dev/sda").at("way") == "metadata");
  REQUIRE(done.at("free-space").at("not-dropped").size() == 1);
  CHECK_THAT(std::string(done.at("free-space").at("not-dropped").at(0)),
             Contains("/dev/sda: --drop has no effect here"));
  // Windows's files are not dropped from a btrfs.
  CHECK(report({"--drop", "pagefile", "-o", folder / "other", disk})
            .at("free-space")
            .at("not-dropped")
            .empty());
}

TEST_CASE("a damaged image is reported before its metadata are read", "[free]") {
  const TempDirectory folder;
  make_ext4(folder / "raw", 64 * kMiB, 4 * kMiB, 30 * kMiB);
  const std::string disk = qcow2_of(folder, folder / "raw");
  // The first L1 entry points past the end of the file.
  const auto header = support::RawFile(disk).read(40, 8);
  uint64_t table = 0;
  for (const std::byte byte : header) table = table << 8 | static_cast<uint64_t>(byte);
  support::patch_file(disk, table, std::as_bytes(std::span("\x80\x00\x7f\x00\x00\x00\x00\x00", 8)));
  CHECK_THAT(refused({"-o", folder / "out", disk}), Contains("the image is damaged"));
  // Same with the appliance, which boots concurrently.
  const NoQemu qemu;
  const auto booted = optimize(qemu, {"--trim=appliance", "-o", folder / "out", disk});
  INFO(booted.describe());
  CHECK(booted.exit_code == 1);
  CHECK_THAT(booted.err, Contains("the image is damaged"));
  CHECK(support::list_directory(folder.path()) == Words{"disk", "raw"});
}

TEST_CASE("volumes of a volume group are read, and its free space is left out", "[free]") {
  if (::geteuid() != 0) {
    WARN("not tried: only root has loop devices");
    return;
  }
  const TempDirectory folder;
  constexpr uint64_t kExtent = 4 * kMiB;
  write_noise(folder / "raw", 128 * kMiB);
  const std::string script =
      "loop=$(losetup -f --show \"$1\") || exit 1\n"
      "lvm() { command lvm \"$@\" --driverloaded n --config \"devices { "
      "filter=[\\\"a|^$loop\\$|\\\","
      "\\\"r|.*|\\\"] use_devicesfile=0 } global { use_lvmpolld=0 } activation { monitoring=0 "
      "udev_sync=0 udev_rules=0 } backup { backup=0 archive=0 }\"; }\n"
      "wipefs -qa $loop; lvm pvcreate -q -y $loop && lvm vgcreate -q group $loop &&\n"
      "lvm lvcreate -an -Zn -Wn -n root -L 64M group; status=$?\n"
      "losetup -d $loop; exit $status\n";
  run_ok({"sh", "-c", script, "sh", folder / "raw"});
  make_ext4(folder / "root", 64 * kMiB, 4 * kMiB, 30 * kMiB);
  run_ok({"dd", "if=" + folder / "root", "of=" + folder / "raw", "bs=1M", "seek=1", "conv=notrunc",
          "status=none"});
  const auto free = guest_test::inspect_files({folder / "raw"}).free_on(0);
  const std::string disk = qcow2_of(folder, folder / "raw");
  const json done = report({"-o", folder / "out", disk});
  CHECK(filesystem(done, "/dev/group/root").at("way") == "metadata");
  CHECK(filesystem(done, "/dev/group/root").at("free") > 50 * kMiB);
  CHECK(filesystem(done, "group").at("free") == 15 * kExtent);
  run_ok({"qemu-img", "convert", "-O", "raw", folder / "out", folder / "out.raw"});
  CHECK(difference(folder / "raw", folder / "out.raw", free) == "");
  run_ok({"dd", "if=" + folder / "out.raw", "of=" + folder / "taken", "bs=1M", "skip=1", "count=64",
          "status=none"});
  run_ok({"e2fsck", "-fn", folder / "taken"});
  run_ok({"debugfs", "-R", "dump kept " + folder / "kept", folder / "taken"});
  write_noise(folder / "noise", 4 * kMiB);
  CHECK(support::read_file(folder / "kept") == support::read_file(folder / "noise"));
}
