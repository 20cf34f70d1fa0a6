// Machines that libvirt runs, or has saved in the middle of their work, and the disks that they
// have.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace tune {

struct DiskUse {
  // "domain 'web' of qemu:///system": has the file as a disk, or behind one.  Empty: none is known
  // to.
  std::string domain;
  // It does not run: its memory is saved, and it would go on with what it knows of the disk.
  bool saved = false;
  // One line for each libvirt that is there, and that could not be asked.
  std::vector<std::string> remarks;
};

// Asks the system's libvirt, and that of the session of whoever runs this, also through sudo; both
// are only read from.  None is started for it, and one that is not there is no error.  It is the
// file that counts, whatever its names are.
//
// An error if there is no such file.
qcow2::Result<DiskUse> find_disk_use(const std::string& path);

// An error, with what to do, if some machine has the file, so that it must not change; else the
// remarks.
qcow2::Result<std::vector<std::string>> check_unused(const std::string& path);

}  // namespace tune
