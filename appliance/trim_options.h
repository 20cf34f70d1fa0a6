// What is trimmed of a guest's disks.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "appliance/guest_disk.h"
#include "appliance/passphrase.h"

namespace vc::appliance {

struct TrimOptions {
  // What guests make again when they boot.
  struct Drop {
    bool pagefile = false;   // of Windows
    bool swapfile = false;   // of Windows: of its store applications
    bool hiberfile = false;  // of Windows, and with it the session that is saved there
    bool shadows = false;    // of Windows: shadow copies, its restore points, which are lost
    bool swap = false;       // of Linux: what swap files hold, and a session saved in swap

    bool any() const { return pagefile || swapfile || hiberfile || shadows || swap; }
  };

  std::vector<DiskName> disks;  // of one guest, at least one
  // Names of libguestfs's ("/dev/sda1", "/dev/vg/lv", and "sda1"), "UUID=…" or "LABEL=…", or of
  // volume groups.
  std::vector<std::string> filesystems;  // only these; empty: all
  std::vector<std::string> ignore;
  // Devices of which it is known what is free: they are left alone.  One that is not there is no
  // error.
  std::vector<std::string> known;
  std::vector<Passphrase> passphrases;
  std::optional<uint64_t> sector_size;  // of all disks, bytes; nothing: their tables tell
  Drop drop;
  // Nothing is written: what the guest's filesystems do goes to a temporary file.
  bool dry_run = false;
  // The disks are throw-away overlays, made to be trimmed: nothing is said of what is behind them,
  // nor of opening and closing them.
  bool overlay = false;
};

}  // namespace vc::appliance
