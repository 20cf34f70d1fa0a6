#include "tests/appliance/guest_maker.h"

#include <fmt/format.h>

#include <cstdlib>
#include <functional>
#include <stdexcept>

#include "tests/appliance/booted.h"
#include "tests/appliance/unclean_ntfs.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

namespace vc::test {

namespace {

constexpr int64_t kMiB = 1 << 20;
constexpr int64_t kSector = 512;
// Files to delete again, in each filesystem.
constexpr int kGarbageFiles = 3;
constexpr int64_t kGarbage = 6 * kMiB;
constexpr int64_t kKept = 700'000;
constexpr int64_t kNoise = 32 * kMiB;
constexpr int64_t kNoiseStep = 1'234'567;

std::string noise(uint64_t seed, int64_t length) {
  std::string bytes(static_cast<size_t>(length), '\0');
  support::Random random(seed);
  random.fill(std::as_writable_bytes(std::span(bytes.data(), bytes.size())));
  return bytes;
}

class Maker {
 public:
  // `noise`: a device with kNoise random bytes. Copying from it is faster than sending all data.
  Maker(Booted& guest, const char* noise, Checksums& kept)
      : it_(guest), g_(guest.handle()), noise_(noise), kept_(kept) {}

  // Runs a command in the appliance. Disks may have other names there: the kernel finds them in any
  // order.
  void shell(const std::string& command) {
    const char* const words[] = {command.c_str(), nullptr};
    it_.text(guestfs_debug(g_, "sh", const_cast<char* const*>(words)));
  }

  // Returns the name of disk number `index` in the appliance's shell.
  static std::string disk_there(int index) {
    return fmt::format("/dev/$(ls /sys/bus/scsi/devices/*:0:{}:0/block)", index);
  }

  struct Part {
    int64_t at;      // sectors
    int64_t length;  // sectors
  };
  // Makes all partitions with one command: libguestfs needs a second for each call.
  void partition_gpt(int index, const std::vector<Part>& parts) {
    std::string script = "label: gpt\\n";
    for (const Part& it : parts) script += fmt::format("start={}, size={}\\n", it.at, it.length);
    shell(fmt::format("printf '{}' | sfdisk -q {} && udevadm settle", script, disk_there(index)));
  }
  // Partitions may begin at any sector.
  void partition_mbr(const char* disk, const std::vector<Part>& parts) {
    it_.check(guestfs_part_init(g_, disk, "mbr"));
    for (const Part& it : parts)
      it_.check(guestfs_part_add(g_, disk, "p", it.at, it.at + it.length - 1));
  }

  // Uses the cheapest key derivation. The passphrase is in octal, since its quotes would not reach
  // the shell.
  void encrypt(int index, int partition) {
    std::string octal;
    for (const char* it = kPassphrase; *it != '\0'; ++it)
      octal += fmt::format("\\{:03o}", static_cast<unsigned char>(*it));
    shell(
        fmt::format("printf '{}' | cryptsetup -q luksFormat --type luks2 --pbkdf pbkdf2 "
                    "--pbkdf-force-iterations 1000 --key-file=- {}{}",
                    octal, disk_there(index), partition));
  }

  // Makes files that stay among files that are deleted.
  void use(
      const std::string& device, const std::string& folder = "/",
      const std::function<void()>& more = [] {}) {
    it_.check(guestfs_mount(g_, device.c_str(), "/"));
    if (folder != "/") it_.check(guestfs_mkdir_p(g_, folder.c_str()));
    const std::string prefix = folder == "/" ? "/" : folder + "/";
    for (int i = 0; i < kGarbageFiles; ++i) {
      write(prefix + fmt::format("gone-{}", i), kGarbage);
      const std::string name = prefix + fmt::format("kept-{}.bin", i);
      write(name, kKept);
      keep(device, name);
    }
    more();
    it_.check(guestfs_sync(g_));
    for (int i = 0; i < kGarbageFiles; ++i)
      it_.check(guestfs_rm(g_, (prefix + fmt::format("gone-{}", i)).c_str()));
    it_.check(guestfs_umount_all(g_));
  }

  void write(const std::string& path, int64_t length) {
    it_.check(guestfs_copy_device_to_file(g_, noise_, path.c_str(),
                                          GUESTFS_COPY_DEVICE_TO_FILE_SRCOFFSET, next_noise(length),
                                          GUESTFS_COPY_DEVICE_TO_FILE_SIZE, length, -1));
  }

  void put(const std::string& path, const std::string& bytes, int64_t at) {
    it_.check(guestfs_pwrite(g_, path.c_str(), bytes.data(), bytes.size(), at));
  }

  void keep(const std::string& device, const std::string& path) {
    kept_[device + ":" + path] = it_.text(guestfs_checksum(g_, "sha256", path.c_str()));
  }

  // Makes other formats, without a partition for them.
  void fill_device(const char* device, int64_t from, int64_t length) {
    it_.check(
        guestfs_copy_device_to_device(g_, noise_, device, GUESTFS_COPY_DEVICE_TO_DEVICE_SRCOFFSET,
                                      next_noise(length), GUESTFS_COPY_DEVICE_TO_DEVICE_DESTOFFSET,
                                      from, GUESTFS_COPY_DEVICE_TO_DEVICE_SIZE, length, -1));
  }

 private:
  // Returns an offset in the noise. No two files have the same content.
  int64_t next_noise(int64_t length) {
    return ++files_ * kNoiseStep % (kNoise - length) / kSector * kSector;
  }

  Booted& it_;
  guestfs_h* g_;
  const char* noise_;
  Checksums& kept_;
  int64_t files_ = 0;
};

void make_linux(Booted& it, Maker& maker, Guests& guests) {
  guestfs_h* const g = it.handle();
  // Newer mkfs tools need 300 MiB for XFS, and 109 MiB for btrfs.
  const int64_t sizes[] = {96, 320, 256, 64, 64, 128};
  int64_t at = 1;
  std::vector<Maker::Part> parts;
  for (const int64_t size : sizes) {
    parts.push_back({at * kMiB / kSector, size * kMiB / kSector});
    at += size;
  }
  maker.partition_gpt(0, parts);
  maker.fill_device("/dev/sda", at * kMiB, 16 * kMiB);
  it.check(guestfs_mkfs(g, "ext4", "/dev/sda1"));
  it.check(guestfs_mkfs(g, "xfs", "/dev/sda2"));
  it.check(guestfs_mkfs(g, "btrfs", "/dev/sda3"));
  it.check(guestfs_mkfs(g, "vfat", "/dev/sda4"));
  it.check(guestfs_mkswap_opts(g, "/dev/sda5", GUESTFS_MKSWAP_OPTS_LABEL, "nap", -1));
  guests.swap_uuid = it.text(guestfs_vfs_uuid(g, "/dev/sda5"));
  maker.fill_device("/dev/sda5", kMiB, 16 * kMiB);
  maker.use("/dev/sda1");
  maker.use("/dev/sda2");
  it.check(guestfs_mount(g, "/dev/sda3", "/"));
  it.check(guestfs_btrfs_subvolume_create(g, "/root"));
  it.check(guestfs_btrfs_subvolume_create(g, "/home"));
  it.check(guestfs_umount_all(g));
  maker.use("/dev/sda3", "/home");
  maker.use("/dev/sda4");
  it.check(guestfs_pvcreate(g, "/dev/sda6"));
  const char* const volumes[] = {"/dev/sda6", nullptr};
  it.check(guestfs_vgcreate(g, "vg", const_cast<char* const*>(volumes)));
  it.check(guestfs_lvcreate(g, "root", "vg", 48));
  it.check(guestfs_lvcreate(g, "swap", "vg", 16));
  it.check(guestfs_lvcreate(g, "gone", "vg", 32));
  maker.fill_device("/dev/vg/gone", 0, 24 * kMiB);
  it.check(guestfs_lvremove(g, "/dev/vg/gone"));
  it.check(guestfs_mkfs(g, "ext4", "/dev/vg/root"));
  it.check(guestfs_mkswap(g, "/dev/vg/swap"));
  maker.use("/dev/vg/root");
}

void make_windows(Booted& it, Maker& maker) {
  guestfs_h* const g = it.handle();
  maker.partition_mbr("/dev/sdb", {{63, 160 * kMiB / kSector},
                                   {200 * kMiB / kSector, 96 * kMiB / kSector},
                                   {296 * kMiB / kSector, 96 * kMiB / kSector}});
  it.check(guestfs_mkfs(g, "ntfs", "/dev/sdb1"));
  maker.use("/dev/sdb1", "/Windows/System32/config", [&] {
    for (const char* hive : {"SYSTEM", "SOFTWARE"}) {
      const std::string path = std::string("/Windows/System32/config/") + hive;
      maker.write(path, 300'000);
      maker.put(path, "regf", 0);
      maker.keep("/dev/sdb1", path);
    }
    maker.write("/pagefile.sys", 12 * kMiB);
    maker.write("/swapfile.sys", 4 * kMiB);
    maker.write("/hiberfil.sys", 8 * kMiB);
    // The file of a Windows that has resumed its session.
    maker.put("/hiberfil.sys", std::string(4096, '\0'), 0);
  });
  it.check(guestfs_mkfs(g, "ext4", "/dev/sdb2"));
  maker.use("/dev/sdb2", "/etc", [&] {
    it.check(guestfs_write(g, "/etc/fstab", "/my/swap none swap sw 0 0\n", 26));
    maker.keep("/dev/sdb2", "/etc/fstab");
    it.check(guestfs_mkdir(g, "/my"));
    it.check(guestfs_fill(g, 0, 16 * kMiB, "/my/swap"));
    it.check(guestfs_mkswap_file(g, "/my/swap"));
    maker.put("/my/swap", noise(77, 4 * kMiB - 4096), kMiB);
  });
  maker.encrypt(1, 3);
  it.check(guestfs_cryptsetup_open(g, "/dev/sdb3", kPassphrase, "crypt0", -1));
  it.check(guestfs_mkfs(g, "ext4", "/dev/mapper/crypt0"));
  maker.use("/dev/mapper/crypt0");
  it.check(guestfs_cryptsetup_close(g, "/dev/mapper/crypt0"));
}

void make_asleep(Booted& it, Maker& maker) {
  guestfs_h* const g = it.handle();
  maker.partition_mbr("/dev/sdc",
                      {{2048, 62 * kMiB / kSector}, {64 * kMiB / kSector, 24 * kMiB / kSector}});
  it.check(guestfs_mkfs(g, "ntfs", "/dev/sdc1"));
  maker.use("/dev/sdc1", "/", [&] {
    maker.write("/hiberfil.sys", 4 * kMiB);
    maker.put("/hiberfil.sys", "HIBR", 0);
  });
  it.check(guestfs_mkfs(g, "ntfs", "/dev/sdc2"));
  const LogPages log = unclean_log([&](uint64_t at, size_t length) {
    size_t got = 0;
    char* const bytes = guestfs_pread_device(g, "/dev/sdc2", static_cast<int>(length),
                                             static_cast<int64_t>(at), &got);
    it.check(bytes ? 0 : -1);
    std::string text(bytes, got);
    std::free(bytes);
    return text;
  });
  it.check(guestfs_pwrite_device(g, "/dev/sdc2", log.bytes.data(), log.bytes.size(),
                                 static_cast<int64_t>(log.at)));
}

std::string new_image(const std::string& path, const char* size) {
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", path, size});
  return path;
}

}  // namespace

Guests make_guests(const std::string& folder) {
  Guests guests;
  guests.linux_disk = new_image(folder + "/linux.qcow2", "1G");
  guests.windows_disk = new_image(folder + "/windows.qcow2", "512M");
  guests.asleep_disk = new_image(folder + "/asleep.qcow2", "96M");
  const std::string random = folder + "/noise.raw";
  support::write_file(random, noise(1, kNoise));
  Booted booted({guests.linux_disk, guests.windows_disk, guests.asleep_disk, random});
  Maker maker(booted, "/dev/sdd", guests.kept);
  make_linux(booted, maker, guests);
  make_windows(booted, maker);
  make_asleep(booted, maker);
  booted.finish();
  return guests;
}

const Guests& shared_guests() {
  static const support::TempDirectory folder;
  static const Guests made = make_guests(folder.path());
  return made;
}

Checksums read_checksums(const std::vector<std::string>& disks, const Checksums& expected) {
  Checksums found;
  Booted booted(disks);
  guestfs_h* const g = booted.handle();
  std::string mounted;
  for (const auto& [name, checksum] : expected) {
    const std::string device = name.substr(0, name.find(':'));
    const std::string path = name.substr(name.find(':') + 1);
    if (device != mounted) {
      booted.check(guestfs_umount_all(g));
      if (device == "/dev/mapper/crypt0")
        booted.check(guestfs_cryptsetup_open(g, "/dev/sdb3", kPassphrase, "crypt0", -1));
      booted.check(guestfs_mount_ro(g, device.c_str(), "/"));
      mounted = device;
    }
    char* const now = guestfs_checksum(g, "sha256", path.c_str());
    if (now) found[name] = booted.text(now);
  }
  booted.finish();
  return found;
}

}  // namespace vc::test
