// Gives back what a guest does not use of its disks.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "appliance/guest_disk.h"
#include "appliance/observer.h"
#include "appliance/passphrase.h"
#include "appliance/trim_report.h"
#include "base/cancel.h"
#include "base/result.h"

namespace appliance {

struct TrimOptions {
  // What guests make again when they boot.
  struct Drop {
    bool pagefile = false;   // of Windows
    bool swapfile = false;   // of Windows: of its store applications
    bool hiberfile = false;  // of Windows, and with it the session that is saved there
    bool shadows = false;    // of Windows: shadow copies, its restore points, which are lost
    bool swap = false;       // of Linux: what swap files hold, and a session saved in swap
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

// Boots an appliance on the disks, and in it trims every filesystem that can be mounted, twice, and
// then syncs; where there is no trimming fills its free space with zeros, which become holes;
// discards swap partitions but for their header, and the free space of volume groups.  What is in
// no partition stays as it is.
//
// The sectors are as large as each disk's partition table says.  Of a disk whose table is damaged
// nothing is trimmed, which a warning says; if there is no other, or no disk has data, there is no
// appliance.
//
// An error when nothing can be done: a disk is in use or cannot be trimmed; a Windows disk is
// hibernated or was not shut down cleanly, or a Linux guest is suspended to disk; a name is of
// nothing.  Then nothing has been trimmed.  What goes wrong with a single filesystem later is in
// the report.  An error that comes later is one of the disk as a whole, such as what the server
// says when it is asked to flush.
//
// When `cancel` is requested the filesystems are unmounted if they can be within seconds; images
// are whole in any case.  Locks, servers and processes are gone on return.
//
// To be called by a thread that stays until it returns.
qcow2::Result<TrimReport> trim(const TrimOptions& options, Observer& observer,
                               const copy::Cancel& cancel);

}  // namespace appliance
