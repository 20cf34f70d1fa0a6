// Machines that libvirt runs, and the disks that they have.
#pragma once

#include <string>
#include <vector>

#include "qcow2/result.h"

namespace tune {

struct DiskUse {
  // "domain 'web' of qemu:///system": has the file as a disk, or behind one.  Empty: none is known
  // to.
  std::string domain;
  // One line for each libvirt that is there, and that could not be asked.
  std::vector<std::string> remarks;
};

// Asks the system's libvirt, and that of the session of whoever runs this, also through sudo; both
// are only read from.  None is started for it, and one that is not there is no error.  It is the
// file that counts, whatever its names are.
//
// An error if there is no such file.
qcow2::Result<DiskUse> find_disk_use(const std::string& path);

}  // namespace tune
