// Disks that look like those of guests.  The appliance makes them, without an installation.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "appliance/appliance.h"

namespace vc::test {

// The files that must not change: "DEVICE:PATH" to the SHA-256 of its bytes.
using Checksums = std::map<std::string, std::string>;

// The passphrase of all encrypted volumes.
inline constexpr const char* kPassphrase = "correct horse 'battery' staple";

// Three used disks.  Each filesystem has files that must stay (`kept` has their checksums), and
// stored data of many MiB of deleted files.
//
//   linux    GPT   1 ext4, 2 XFS, 3 btrfs with subvolumes, 4 FAT, 5 swap, 6 LVM: ext4, swap, free
//   windows  MBR   1 at sector 63: NTFS with Windows's own files; 2 ext4 with a swap file;
//                  3 LUKS: ext4
//   asleep   MBR   1 NTFS with the hibernation file of a hibernated system; 2 NTFS that was not
//   unmounted
//
// After the last partition of `linux` there are 16 MiB of data outside of all partitions.
struct Guests {
  std::string linux_disk;
  std::string windows_disk;
  std::string asleep_disk;
  Checksums kept;
  std::string swap_uuid;
};

// Makes the disks in `folder`.  Throws std::runtime_error on failure.
Guests make_guests(const std::string& folder);

// Made once per process, because it takes a boot.  Tests change copies.
const Guests& shared_guests();

// Returns the current checksums of the files of `expected`, on disks in the order of `names`. Files
// that cannot be read are left out.
Checksums read_checksums(const std::vector<std::string>& disks, const Checksums& expected);

}  // namespace vc::test
