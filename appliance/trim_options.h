// Options of a trim.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "appliance/guest_disk.h"
#include "appliance/passphrase.h"

namespace vc::appliance {

struct TrimOptions {
  // Files that guests create again when they boot.
  struct Drop {
    bool pagefile = false;   // Windows
    bool swapfile = false;   // Windows: of store applications
    bool hiberfile = false;  // Windows: and the session that is saved in it
    bool shadows = false;    // Windows: shadow copies and restore points, which are lost
    bool swap = false;       // Linux: contents of swap files, and a session saved in swap

    bool any() const { return pagefile || swapfile || hiberfile || shadows || swap; }
  };

  std::vector<GuestDiskName> disks;  // all of one guest, at least one
  // Names of libguestfs ("/dev/sda1", "/dev/vg/lv", or "sda1"), "UUID=…", "LABEL=…", or names of
  // volume groups.
  std::vector<std::string> filesystems;  // only these; empty: all
  std::vector<std::string> ignore;
  // Devices whose free space is known: they are skipped. A missing device is no error.
  std::vector<std::string> known;
  std::vector<Passphrase> passphrases;
  std::optional<uint64_t> sector_size;  // of all disks, bytes; nullopt: from their tables
  Drop drop;
  // Changes nothing: writes of the guest's filesystems go to a temporary file.
  bool dry_run = false;
  // The disks are temporary overlays. Suppresses messages about backing files, and about opening
  // and closing the disks.
  bool overlay = false;
};

}  // namespace vc::appliance
