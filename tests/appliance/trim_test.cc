// Trims disks of guests, as a user does.
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/appliance/booted.h"
#include "tests/appliance/guest_maker.h"
#include "tests/appliance/interrupted.h"
#include "tests/appliance/left_behind.h"
#include "tests/catch.h"
#include "tests/support/command_line.h"
#include "tests/support/lying_server.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using nlohmann::json;
using support::Outcome;
using support::TempDirectory;
using test::LeftBehind;
using test::shared_guests;

namespace {

constexpr uint64_t kMiB = 1 << 20;
// Of 18 MiB of deleted data, every filesystem frees at least this much.
constexpr uint64_t kGarbage = 14 * kMiB;
// Enough for an emulated appliance on a busy machine.
constexpr std::chrono::minutes kPatience(15);

Outcome trim(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {tool_test::virt_compact(), "trim"});
  support::RunOptions options;
  options.timeout = kPatience;
  return support::run(arguments, options);
}

std::string copy_of(const std::string& image, const TempDirectory& folder) {
  const std::string copy = folder / std::filesystem::path(image).filename().string();
  std::filesystem::copy_file(image, copy);
  return copy;
}

uint64_t length(const std::string& path) {
  return std::filesystem::file_size(path);
}

uint64_t blocks(const std::string& path) {
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  return static_cast<uint64_t>(status.st_blocks) * 512;
}

// Returns the number of allocated clusters. The image must have no errors.
uint64_t clusters(const std::string& image) {
  return json::parse(support::run_ok({"qemu-img", "check", "--output=json", image}).out)
      .at("allocated-clusters");
}

std::map<std::string, json> by_device(const json& report) {
  std::map<std::string, json> spaces;
  for (const json& it : report.at("filesystems")) spaces[it.at("device")] = it;
  return spaces;
}

std::string label_and_uuid(const std::string& raw, uint64_t at) {
  return support::run_ok({"blkid", "-p", "-O", std::to_string(at), "-o", "value", "-s", "LABEL",
                          "-s", "UUID", raw})
      .out;
}

}  // namespace

TEST_CASE("a trim frees what the guest does not use, and nothing else") {
  (void)shared_guests();
  const LeftBehind before;
  const TempDirectory folder;
  const std::string linux_disk = copy_of(shared_guests().linux_disk, folder);
  const std::string windows_disk = copy_of(shared_guests().windows_disk, folder);
  const std::string twin = folder / "twin.qcow2";
  std::filesystem::copy_file(linux_disk, twin);
  const uint64_t linux_length = length(linux_disk);
  const uint64_t windows_length = length(windows_disk);
  support::run_ok({"qemu-img", "convert", "-O", "raw", linux_disk, folder / "before.raw"});

  const auto done =
      trim({"--json", "--drop", "pagefile,swapfile,hiberfile,swap", "--key",
            std::string("/dev/sdb3:key:") + test::kPassphrase, linux_disk, windows_disk});
  INFO(done.describe());
  REQUIRE(done.ok());
  const json report = json::parse(done.out);
  CHECK(report.at("complete") == true);
  CHECK(report.at("dry-run") == false);
  auto spaces = by_device(report);
  for (const char* device : {"/dev/sda1", "/dev/sda2", "/dev/sda3", "/dev/sda4", "/dev/vg/root",
                             "/dev/sdb1", "/dev/sdb2", "/dev/mapper/crypt0"}) {
    CAPTURE(device, spaces[device].dump());
    REQUIRE(spaces.contains(device));
    CHECK(spaces[device].at("outcome") == "trimmed");
    CHECK(spaces[device].at("freed") >= kGarbage);
    CHECK(spaces[device].at("used") < spaces[device].at("size"));
  }
  for (const char* device : {"/dev/sda5", "/dev/vg/swap", "vg"}) {
    CAPTURE(device, spaces[device].dump());
    CHECK(spaces[device].at("outcome") == "discarded");
  }
  CHECK(spaces["/dev/sda5"].at("freed") >= kGarbage);
  CHECK(spaces["vg"].at("freed") >= 20 * kMiB);
  // btrfs's subvolumes count as one filesystem. The encrypted device is listed by its content.
  CHECK(report.at("filesystems").size() == 11);
  CHECK(report.at("dropped").size() == 4);

  // Windows's files have 24 MiB, and Linux's swap has 4 MiB.
  CHECK(spaces["/dev/sdb1"].at("freed") >= kGarbage + 22 * kMiB);
  CHECK(spaces["/dev/sdb2"].at("freed") >= kGarbage + 3 * kMiB);

  for (const json& disk : report.at("disks")) {
    CHECK(disk.at("data-after") < disk.at("data-before"));
    const std::string path = disk.at("filename");
    CHECK(disk.at("after").at("length") == length(path));
    CHECK(disk.at("after").at("blocks") == blocks(path));
  }
  CHECK(length(linux_disk) < linux_length - 100 * kMiB);
  CHECK(length(windows_disk) < windows_length - 60 * kMiB);
  const uint64_t ours = clusters(linux_disk);
  clusters(windows_disk);

  support::run_ok({"qemu-img", "convert", "-O", "raw", linux_disk, folder / "after.raw"});
  // Compares the partition table, and the data after the last partition.
  const support::RawFile raw_before(folder / "before.raw");
  const support::RawFile raw_after(folder / "after.raw");
  CHECK(raw_before.read(0, kMiB) == raw_after.read(0, kMiB));
  CHECK(raw_before.first_nonzero(929 * kMiB, 16 * kMiB));
  CHECK(raw_before.read(929 * kMiB, 16 * kMiB) == raw_after.read(929 * kMiB, 16 * kMiB));
  constexpr uint64_t kSwap = 737 * kMiB;
  CHECK(label_and_uuid(folder / "after.raw", kSwap) ==
        label_and_uuid(folder / "before.raw", kSwap));
  CHECK_THAT(label_and_uuid(folder / "after.raw", kSwap),
             Catch::Contains(shared_guests().swap_uuid));
  CHECK(!raw_after.first_nonzero(kSwap + 64 * 1024, 63 * kMiB));

  test::Checksums kept = shared_guests().kept;
  std::erase_if(kept, [](const auto& it) { return it.first.starts_with("/dev/sdc"); });
  CHECK(kept.size() >= 24);
  CHECK(test::read_checksums({linux_disk, windows_disk}, kept) == kept);
  CHECK(before.complaint() == "");

  // libguestfs's own client frees no more.
  support::RunOptions patient;
  patient.timeout = kPatience;
  patient.environment = {"LIBGUESTFS_BACKEND=direct", "LIBGUESTFS_BACKEND_SETTINGS=force_tcg"};
  support::run_ok({"virt-sparsify", "--in-place", twin}, patient);
  const uint64_t theirs = clusters(twin);
  INFO("ours " << ours << ", virt-sparsify's " << theirs << " clusters");
  CHECK(ours <= theirs);
  CHECK(length(linux_disk) < length(twin));
}

TEST_CASE("a dry run predicts the real run, and writes nothing") {
  (void)shared_guests();
  const LeftBehind before;
  const TempDirectory folder;
  const std::string disk = copy_of(shared_guests().windows_disk, folder);
  const auto bytes = support::read_file(disk);
  const auto done = trim({"--dry-run", "--json", "--ignore", "sda2", "--drop", "pagefile", disk});
  INFO(done.describe());
  REQUIRE(done.ok());
  CHECK(support::read_file(disk) == bytes);
  auto spaces = by_device(json::parse(done.out));
  CHECK(spaces["/dev/sda1"].at("freed") >= kGarbage + 11 * kMiB);
  CHECK(spaces["/dev/sda2"].at("outcome") == "left-alone");
  // There is no key for it.
  CHECK(spaces["/dev/sda3"].at("outcome") == "left-alone");
  CHECK_THAT(std::string(spaces["/dev/sda3"].at("why")), Catch::Contains("--key"));
  CHECK(before.complaint() == "");
}

TEST_CASE("hibernated or unclean Windows is refused, and not changed") {
  (void)shared_guests();
  const LeftBehind before;
  const TempDirectory folder;
  const std::string disk = copy_of(shared_guests().asleep_disk, folder);
  const uint64_t allocated = clusters(disk);
  support::run_ok({"qemu-img", "convert", "-O", "raw", disk, folder / "before.raw"});
  const auto refused = trim({disk});
  INFO(refused.describe());
  CHECK(refused.exit_code == 1);
  CHECK_THAT(refused.err, Catch::Contains("/dev/sda1: Windows is hibernated") &&
                              Catch::Contains("--drop hiberfile"));
  CHECK(clusters(disk) == allocated);
  CHECK(support::run({"qemu-img", "compare", disk, folder / "before.raw"}).ok());

  const auto unclean = trim({"--drop", "hiberfile", disk});
  INFO(unclean.describe());
  CHECK(unclean.exit_code == 1);
  CHECK_THAT(unclean.err, Catch::Contains("/dev/sda2: Windows was not shut down cleanly") &&
                              Catch::Contains("--ignore /dev/sda2"));
  CHECK(clusters(disk) == allocated);
  CHECK(support::run({"qemu-img", "compare", disk, folder / "before.raw"}).ok());

  const auto dropped = trim({"--drop", "hiberfile", "--ignore", "/dev/sda2", "--json", disk});
  INFO(dropped.describe());
  REQUIRE(dropped.ok());
  CHECK(by_device(json::parse(dropped.out))["/dev/sda1"].at("freed") >= kGarbage + 3 * kMiB);
  clusters(disk);
  CHECK(before.complaint() == "");
}

// Returns the header of a volume's shadow copies, with the GUIDs of the volume and of the volume
// that stores the copies.
static std::string shadow_copy_header(char volume, char storage) {
  std::string header(512, '\0');
  header.replace(0, 16,
                 std::string("\x6b\x87\x08\x38\x76\xc1\x48\x4e"
                             "\xb7\xae\x04\x04\x6e\x6c\xc7\x52",
                             16));
  header[0x14] = 1;
  header.replace(0x40, 16, std::string(16, volume));
  header.replace(0x50, 16, std::string(16, storage));
  return header;
}

TEST_CASE("data that snapshots and shadow copies need is not trimmed", "[essential]") {
  const TempDirectory folder;
  const std::string disk = folder / "guest.qcow2";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", disk, "384M"});
  const auto snapshot = [](const test::Booted& it) {
    const char* const command[] = {"lvm lvs --noheadings -o lv_attr,snap_percent vg/before",
                                   nullptr};
    return it.text(guestfs_debug(it.handle(), "sh", const_cast<char* const*>(command)));
  };
  constexpr const char* kStore =
      "/System Volume Information/{00000000-1111-2222-3333-444444444444}"
      "{3808876B-C176-4e48-B7AE-04046E6CC752}";
  {
    test::Booted it({disk});
    guestfs_h* const g = it.handle();
    it.check(guestfs_part_init(g, "/dev/sda", "mbr"));
    it.check(guestfs_part_add(g, "/dev/sda", "p", 2048, 264191));
    it.check(guestfs_part_add(g, "/dev/sda", "p", 264192, 520191));
    it.check(guestfs_part_add(g, "/dev/sda", "p", 520192, 643071));
    it.check(guestfs_part_add(g, "/dev/sda", "p", 643072, 765951));
    it.check(guestfs_pvcreate(g, "/dev/sda1"));
    const char* const volumes[] = {"/dev/sda1", nullptr};
    it.check(guestfs_vgcreate(g, "vg", const_cast<char* const*>(volumes)));
    it.check(guestfs_lvcreate(g, "root", "vg", 64));
    it.check(guestfs_mkfs(g, "ext4", "/dev/vg/root"));
    it.check(guestfs_mount(g, "/dev/vg/root", "/"));
    it.check(guestfs_write(g, "/precious", "precious", 8));
    it.check(guestfs_umount_all(g));
    const char* const command[] = {"lvm lvcreate -s -L 12M -n before vg/root", nullptr};
    (void)it.text(guestfs_debug(g, "sh", const_cast<char* const*>(command)));
    it.check(guestfs_mount(g, "/dev/vg/root", "/"));
    it.check(guestfs_rm(g, "/precious"));
    it.check(guestfs_umount_all(g));
    CHECK_THAT(snapshot(it), Catch::Contains("swi-a-s"));
    it.check(guestfs_mkfs(g, "ntfs", "/dev/sda2"));
    it.check(guestfs_mount(g, "/dev/sda2", "/"));
    it.check(guestfs_mkdir(g, "/System Volume Information"));
    it.check(guestfs_write(g, kStore, "what was", 8));
    const std::string garbage(2 << 20, 'g');
    for (int i = 0; i < 8; ++i)
      it.check(guestfs_write_append(g, "/garbage", garbage.data(), garbage.size()));
    it.check(guestfs_rm(g, "/garbage"));
    it.check(guestfs_umount_all(g));
    // sda4 stores the shadow copies of sda3. No file on sda3 shows that.
    it.check(guestfs_mkfs(g, "ntfs", "/dev/sda3"));
    it.check(guestfs_mkfs(g, "ntfs", "/dev/sda4"));
    it.check(guestfs_mount(g, "/dev/sda4", "/"));
    it.check(guestfs_mkdir(g, "/System Volume Information"));
    it.check(guestfs_write(g, kStore, "what was", 8));
    it.check(guestfs_umount_all(g));
    const auto put_header = [&](const char* device, const std::string& header) {
      const int put = guestfs_pwrite_device(g, device, header.data(), header.size(), 0x1E00);
      it.check(put < 0 ? -1 : 0);
    };
    put_header("/dev/sda3", shadow_copy_header('3', '4'));
    put_header("/dev/sda4", shadow_copy_header('4', '4'));
    it.finish();
  }
  const auto done = trim({"--json", disk});
  INFO(done.describe());
  REQUIRE(done.ok());
  auto spaces = by_device(json::parse(done.out));
  CHECK(spaces["/dev/sda4"].at("outcome") == "trimmed");
  for (const char* device : {"/dev/vg/root", "/dev/vg/before", "/dev/sda2", "/dev/sda3"}) {
    CAPTURE(device);
    CHECK(spaces[device].at("outcome") == "left-alone");
    CHECK_THAT(done.err, Catch::Contains(std::string(device) + ": is not trimmed: "));
  }
  CHECK_THAT(done.err, Catch::Contains("LVM snapshot") && Catch::Contains("shadow copies"));

  const auto given_up = trim({"--json", "--drop", "shadows", disk});
  INFO(given_up.describe());
  REQUIRE(given_up.ok());
  const json report = json::parse(given_up.out);
  CHECK(by_device(report)["/dev/sda2"].at("outcome") == "trimmed");
  CHECK(by_device(report)["/dev/sda2"].at("freed") >= 14 * kMiB);

  test::Booted it({disk});
  guestfs_h* const g = it.handle();
  CHECK_THAT(snapshot(it), Catch::Contains("swi-a-s"));
  it.check(guestfs_mount_ro(g, "/dev/vg/before", "/"));
  CHECK(it.text(guestfs_cat(g, "/precious")) == "precious");
  it.check(guestfs_umount_all(g));
  it.check(guestfs_mount_ro(g, "/dev/sda2", "/"));
  CHECK(guestfs_exists(g, kStore) == 0);
  it.check(guestfs_umount_all(g));
  it.finish();
  clusters(disk);
}

TEST_CASE("the disk of a server is trimmed, and a filesystem without trim is filled with zeros",
          "[essential]") {
  const LeftBehind before;
  const TempDirectory folder;
  // Data from before the filesystem is free space now.
  std::vector<std::byte> noise(32 * kMiB);
  support::Random(5).fill(noise);
  support::write_file(folder / "old.raw", noise);
  support::run_ok({"mkudffs", "--media-type=hd", "--blocksize=512", folder / "old.raw"});
  support::run_ok({"qemu-img", "convert", "-O", "qcow2", folder / "old.raw", folder / "old.qcow2"});
  support::write_file(folder / "new.raw", noise);
  support::run_ok({"mkfs.ext4", "-q", "-F", "-E", "nodiscard", folder / "new.raw"});
  const auto done = trim({"--json", "-f", "raw", folder / "new.raw", "[", "qemu-nbd", "-t",
                          "--discard=unmap", "-f", "qcow2", folder / "old.qcow2", "]"});
  INFO(done.describe());
  REQUIRE(done.ok());
  auto spaces = by_device(json::parse(done.out));
  CHECK(spaces["/dev/sda"].at("outcome") == "trimmed");
  CHECK(spaces["/dev/sda"].at("freed") >= 24 * kMiB);
  CHECK(spaces["/dev/sdb"].at("outcome") == "zero-filled");
  CHECK(spaces["/dev/sdb"].at("freed") >= 28 * kMiB);
  CHECK(blocks(folder / "new.raw") < 8 * kMiB);
  CHECK(support::run({"e2fsck", "-fn", folder / "new.raw"}).ok());
  CHECK(clusters(folder / "old.qcow2") < 64);
  CHECK(before.complaint() == "");
}

namespace {

// Makes a raw disk full of data, then a GPT and an empty filesystem of 60 MiB on it.
void make_used_disk(const std::string& path, uint64_t sector_size) {
  std::vector<std::byte> noise(64 * kMiB);
  support::Random(sector_size).fill(noise);
  std::fill_n(noise.begin(), kMiB, std::byte{0});
  std::fill_n(noise.end() - kMiB, kMiB, std::byte{0});
  support::write_file(path, noise);
  support::RunOptions typed;
  typed.input = "g\nn\n1\n" + std::to_string(kMiB / sector_size) + "\n\nw\n";
  support::run_ok({"fdisk", "-w", "always", "-b", std::to_string(sector_size), path}, typed);
  support::run_ok({"mke2fs", "-q", "-t", "ext4", "-E", "nodiscard,offset=" + std::to_string(kMiB),
                   "-b", "4096", path, "60M"});
}

}  // namespace

TEST_CASE("disks with sectors of 4096 and of 512 bytes are trimmed together", "[essential]") {
  const LeftBehind before;
  const TempDirectory folder;
  const std::string large = folder / "large.raw";
  const std::string small = folder / "small.raw";
  make_used_disk(large, 4096);
  make_used_disk(small, 512);
  const auto done = trim({"--json", "-f", "raw", large, small});
  INFO(done.describe());
  REQUIRE(done.ok());
  const json report = json::parse(done.out);
  CHECK_FALSE(report.contains("nothing"));
  CHECK(report.at("disks").at(0).at("sector-size") == 4096);
  CHECK(report.at("disks").at(0).at("partition-table") == "gpt");
  CHECK(report.at("disks").at(1).at("sector-size") == 512);
  auto spaces = by_device(report);
  for (const char* device : {"/dev/sda1", "/dev/sdb1"}) {
    CAPTURE(device);
    CHECK(spaces[device].at("outcome") == "trimmed");
    CHECK(spaces[device].at("freed") >= 40 * kMiB);
  }
  for (const std::string& disk : {large, small}) {
    CHECK(blocks(disk) < 20 * kMiB);
    CHECK(support::run({"e2fsck", "-fn", disk + "?offset=" + std::to_string(kMiB)}).ok());
  }
  CHECK(before.complaint() == "");
}

TEST_CASE("a server that falls silent or lies while the appliance works ends the trim",
          "[essential]") {
  const LeftBehind before;
  const TempDirectory folder;
  make_used_disk(folder / "disk.raw", 512);
  const auto disk = support::read_file(folder / "disk.raw");
  struct Case {
    support::Lie lie;
    unsigned honest;  // commands
    const char* step;
    const char* why;
  };
  const char* const silent = "the server has not answered within";
  const auto [lie, honest, step, why] =
      GENERATE_COPY(Case{support::Lie::kSilentAtCommand, 20, "Booting", silent},
                    Case{support::Lie::kSilentAtTrim, 0, "Trimming", silent},
                    Case{support::Lie::kFirstHalf, 20, "Booting", "does not match the request"});
  // One that accepts several clients would not be silent for all of them.
  const support::LyingServer server({.lie = lie, .honest = honest, .multi_conn = false}, disk);
  const auto done = trim({"--timeout=2", server.uri()});
  INFO(done.describe());
  CHECK(done.exit_code == 1);
  CHECK_THAT(done.err, Catch::Contains("virt-compact: error: " + server.uri() + ": ") &&
                           Catch::Contains(why));
  if (why == silent) CHECK_THAT(done.err, Catch::Contains("(--timeout)"));
  CHECK_THAT(done.err, !Catch::Contains("KVM does not work"));
  CHECK_THAT(done.out, Catch::Contains(step));
  CHECK(before.complaint() == "");
}

TEST_CASE("a server without space left is an error, which ends no trim with a wait",
          "[essential]") {
  const LeftBehind before;
  const TempDirectory folder;
  make_used_disk(folder / "disk.raw", 512);
  const auto done = trim({"[", "nbdkit", "--filter=error", "file", folder / "disk.raw",
                          "error=ENOSPC", "error-pwrite-rate=100%", "]"});
  INFO(done.describe());
  CHECK(done.exit_code == 1);
  CHECK_THAT(done.out, Catch::Contains("/dev/sda1") && Catch::Contains("failed: "));
  CHECK_THAT(done.err, Catch::Contains("error: nothing was trimmed: trimming has failed"));
  CHECK(before.complaint() == "");
}

TEST_CASE("optimize has the appliance trim a disk with sectors of 4096 bytes") {
  const LeftBehind before;
  const TempDirectory folder;
  const std::string disk = folder / "large.raw", out = folder / "out.qcow2";
  make_used_disk(disk, 4096);
  support::RunOptions patient;
  patient.timeout = kPatience;
  const auto done = support::run(
      {tool_test::virt_compact(), "optimize", "--json", "--trim=appliance", "-o", out, disk},
      patient);
  INFO(done.describe());
  REQUIRE(done.ok());
  const json trimmed = json::parse(done.out).at("disks").at(0).at("trim");
  CHECK_FALSE(trimmed.contains("nothing"));
  CHECK(trimmed.at("disks").at(0).at("sector-size") == 4096);
  CHECK(trimmed.at("filesystems").at(0).at("device") == "/dev/sda1");
  CHECK(trimmed.at("filesystems").at(0).at("outcome") == "trimmed");
  CHECK(blocks(out) < 20 * kMiB);
  support::run_ok({"qemu-img", "convert", "-O", "raw", out, folder / "raw"});
  CHECK(support::run({"e2fsck", "-fn", folder / "raw?offset=" + std::to_string(kMiB)}).ok());
  CHECK(before.complaint() == "");
}

TEST_CASE("the appliance trims an encrypted image, which stays encrypted", "[essential]") {
  const TempDirectory folder;
  const std::string raw = folder / "raw", disk = folder / "disk", small = folder / "small";
  const std::string passphrase = "Zauberwort 8472";
  support::write_file(folder / "key", passphrase);
  support::write_file(raw, std::string());
  support::resize_file(raw, 64 * kMiB);
  support::run_ok({"mkfs.ext4", "-q", "-F", raw});
  // Data in free space.
  support::run_ok({"qemu-io", "-f", "raw", "-c", "write -q -P 5 40M 16M", raw});
  support::run_ok({tool_test::virt_compact(), "copy", "-q", "-f", "raw", "--object",
                   "secret,id=s,file=" + (folder / "key"), "-o",
                   "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", raw, disk});
  const uint64_t before = length(disk);
  const std::string key = "--key=disk:file:" + (folder / "key");
  // No process may have the passphrase in its arguments.
  std::atomic<bool> done{false};
  std::atomic<unsigned> shown{0};
  std::thread watch([&] {
    for (; !done; std::this_thread::sleep_for(std::chrono::milliseconds(200))) {
      const auto all = support::run({"sh", "-c", "cat /proc/[0-9]*/cmdline 2>/dev/null"});
      if (all.out.find(passphrase) != std::string::npos) ++shown;
    }
  });
  const auto optimized = support::run({tool_test::virt_compact(), "optimize", "-q", key,
                                       "--trim=appliance", "--output", small, disk});
  const auto trimmed = trim({"-q", key, disk});
  done = true;
  watch.join();
  CHECK(shown == 0);
  for (const auto* it : {&optimized, &trimmed}) {
    INFO(it->describe());
    REQUIRE(it->ok());
  }
  for (const std::string& path : {disk, small}) {
    CAPTURE(path);
    CHECK(length(path) + 12 * kMiB < before);
    support::run_ok({"qemu-img", "convert", "-O", "raw", "--object",
                     "secret,id=s,file=" + (folder / "key"), "--image-opts",
                     "driver=qcow2,encrypt.key-secret=s,file.filename=" + path, raw});
    support::run_ok({"e2fsck", "-fn", raw});
    CHECK(support::run({tool_test::virt_compact(), "check", "-q", path}).ok());
  }
}

TEST_CASE("a run that trims nothing reports the reason and fails") {
  const TempDirectory folder;
  std::vector<std::byte> noise(8 * kMiB);
  support::Random(3).fill(noise);
  support::write_file(folder / "noise", noise);
  const auto done = trim({"--json", "-f", "raw", folder / "noise"});
  INFO(done.describe());
  CHECK(done.exit_code == 1);
  CHECK_THAT(done.err, Catch::Contains(
                           "error: nothing was trimmed: the appliance found no known filesystem"));
  const json report = json::parse(done.out);
  CHECK(report.at("complete") == false);
  CHECK_THAT(std::string(report.at("nothing")), Catch::Contains("--sector-size"));
  CHECK(report.at("disks").at(0).at("partition-table") == "none");
}

TEST_CASE("a damaged partition table is reported without booting the appliance", "[essential]") {
  const TempDirectory folder;
  const std::string raw = folder / "raw";
  make_used_disk(raw, GENERATE(512, 4096));
  // Sets a name in the table, at its place with either sector size.
  for (const uint64_t at : {512 * 2 + 60, 4096 * 2 + 60}) {
    auto byte = support::RawFile(raw).read(at, 1);
    byte[0] ^= std::byte{1};
    support::patch_file(raw, at, byte);
  }
  const std::string disk = folder / "disk.qcow2";
  support::run_ok({"qemu-img", "convert", "-O", "qcow2", raw, disk});
  const auto trimmed = trim({disk});
  INFO(trimmed.describe());
  CHECK(trimmed.exit_code == 1);
  CHECK_THAT(trimmed.err, Catch::Contains("warning: " + disk +
                                          ": this disk is not trimmed: its partition table (GPT") &&
                              Catch::Contains("the backup at the end of the disk is valid") &&
                              Catch::Contains("error: nothing was trimmed"));
  CHECK_THAT(trimmed.out, !Catch::Contains("Booting") && Catch::Contains("Nothing was trimmed"));

  // The warning depends only on the disk, not on the method.
  for (const std::string how : {"auto", "appliance"}) {
    const std::string own = folder / (how + ".qcow2");
    support::run_ok({"cp", disk, own});
    support::RunOptions patient;
    patient.timeout = kPatience;
    const auto optimized = support::run(
        {tool_test::virt_compact(), "optimize", "--json", "-c", "--trim=" + how, own}, patient);
    INFO(optimized.describe());
    REQUIRE(optimized.ok());
    CHECK_THAT(optimized.err, Catch::Contains("nothing was trimmed, so all data is copied"));
    const json report = json::parse(optimized.out).at("disks").at(0);
    const bool by_appliance = how == "appliance";
    CHECK(report.contains("trim") == by_appliance);
    if (by_appliance)
      CHECK(report.at("trim").at("disks").at(0).at("partition-table") == "damaged-gpt");
    const json& looked = report.at(by_appliance ? "trim" : "free-space");
    CHECK_THAT(std::string(looked.at("nothing")), Catch::Contains("GPT"));
    CHECK(support::run({"qemu-img", "compare", "-q", own, own + ".bak"}).ok());
  }
}

TEST_CASE("the appliance does not inspect a disk without data", "[essential]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk.qcow2";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", disk, "16M"});
  const auto done = trim({disk});
  INFO(done.describe());
  CHECK(done.ok());
  CHECK_THAT(done.out, !Catch::Contains("Booting") && Catch::Contains("nothing to trim"));
}

TEST_CASE("a disk that cannot be trimmed is refused before anything starts", "[essential]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk.qcow2";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", disk, "16M"});
  const auto refused = [&](const std::vector<std::string>& arguments, const std::string& why) {
    const auto outcome = trim(arguments);
    INFO(outcome.describe());
    CHECK(outcome.exit_code == 1);
    CHECK_THAT(outcome.err, Catch::Contains(why));
    CHECK_THAT(outcome.out, !Catch::Contains("Booting"));
  };
  refused({folder / "none.qcow2"}, "No such file");
  refused({"[", "nbdkit", "eval", "get_size=echo 16M", "pwrite=cat >/dev/null",
           "pread=head -c $3 /dev/zero", "]"},
          "the server does not support trim");
  refused({"[", "nbdkit", "-r", "memory", "16M", "]"}, "the server allows no writes");
  refused({"-f", "qcow2", "nbd://localhost:1/"}, "is not decoded");
  {
    // QEMU has the disk open.
    const support::Child writer({"qemu-io", "-f", "qcow2", "-c", "sleep 20000", disk},
                                folder / "log");
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    refused({disk}, "shut it down first");
  }
}

TEST_CASE("Ctrl-C at any moment leaves a valid image, and nothing else", "[stopped]") {
  // First, since the folder of LeftBehind is removed with it.
  (void)shared_guests();
  const TempDirectory folder;
  const std::string disk = copy_of(shared_guests().linux_disk, folder);
  using std::chrono::milliseconds;
  for (const auto& [step, later] :
       std::vector<std::pair<std::string, milliseconds>>{{"Opening", milliseconds(0)},
                                                         {"Booting", milliseconds(300)},
                                                         {"Booting", milliseconds(4000)},
                                                         {"Trimming /dev/sda2", milliseconds(50)},
                                                         {"Shutting", milliseconds(100)}}) {
    CAPTURE(step, later.count());
    const LeftBehind before;
    const TempDirectory logs;
    test::interrupt({tool_test::virt_compact(), "trim", disk}, logs / "log", {step, later, SIGINT});
    CHECK(before.complaint() == "");
    clusters(disk);
  }
}
