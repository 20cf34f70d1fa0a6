// Disks of guests that were never installed, made in an appliance.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "appliance/appliance.h"

namespace vc::test {

// What a guest keeps: "DEVICE:PATH" to the SHA-256 of its bytes.
using Checksums = std::map<std::string, std::string>;

// The passphrase of all that is encrypted.
inline constexpr const char* kPassphrase = "correct horse 'battery' staple";

// Three disks that have been used: on each filesystem there are files that stay (their checksums
// are in `kept`), and many MiB of what was deleted.
//
//   linux    GPT   1 ext4, 2 XFS, 3 btrfs with subvolumes, 4 FAT, 5 swap, 6 LVM: ext4, swap, free
//   windows  MBR   1 at sector 63: NTFS with Windows's own files; 2 ext4 with a swap file;
//                  3 LUKS: ext4
//   asleep   MBR   1 NTFS with a hibernation file that says so; 2 NTFS that was not unmounted
//
// Behind the last partition of `linux` there are 16 MiB of data that no partition has.
struct Guests {
  std::string linux_disk;
  std::string windows_disk;
  std::string asleep_disk;
  Checksums kept;
  std::string swap_uuid;
};

// Makes them in `folder`; throws std::runtime_error when something does not work.
Guests make_guests(const std::string& folder);

// Made once for the process, since that takes a boot.  Tests change copies.
const Guests& shared_guests();

// The checksums of the files of `expected` as they are now, on disks in the order of `names`: what
// cannot be read is missing.
Checksums read_checksums(const std::vector<std::string>& disks, const Checksums& expected);

}  // namespace vc::test
