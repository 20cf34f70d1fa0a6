// Finds the libvirt domains, running or with saved state, that use a disk.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace vc::libvirt {

struct DiskUse {
  // "domain 'web' of qemu:///system", which uses the file as a disk or as a backing file. Empty: no
  // known domain does.
  std::string domain;
  // The domain does not run: its memory is saved and relies on the disk's content.
  bool saved = false;
  // One line for each libvirt that exists but could not be queried.
  std::vector<std::string> remarks;
};

// Queries the system's libvirt and the session libvirt of the user, also through sudo, read-only.
// Starts no daemon. A missing libvirt is no error. Compares files, not names. Returns an error if
// the file does not exist.
Result<DiskUse> find_disk_use(const std::string& path);

// Returns an error with advice if a domain uses the file, so that it must not change. Otherwise
// returns the remarks.
Result<std::vector<std::string>> check_unused(const std::string& path);

// Returns the URIs of the libvirt daemons of this machine that run, for connections that change
// domains. Starts no daemon.
std::vector<std::string> running_libvirts();

}  // namespace vc::libvirt
