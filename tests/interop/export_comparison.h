// Compares an export of a QCOW2 image with the bytes that QEMU reads from the image.
#pragma once

#include <string>

#include "qcow2/read/disk.h"
#include "tests/interop/image_maker.h"
#include "tests/support/nbd_server.h"
#include "tests/support/random.h"

namespace vc::interop {

// The name of the export in the plugin and in the qcow2 filter.
std::string export_name(const MadeDisk& disk);

// Returns where nbdcopy's copy of the disk at `uri` differs from `raw`, or an empty string.
// `scratch`: path of a temporary file.
std::string copy_complaint(const std::string& uri, const std::string& raw,
                           const std::string& scratch);

// Checks that the read-only export `name` has the bytes of the file `raw`, and the map of `disk`.
// If it is `huge`, qemu-img does not read it.  `knows_holes`: the server reports holes of the image
// file.
void check_export(const support::NbdServer& server, const std::string& name,
                  const qcow2::Disk& disk, const std::string& raw, bool huge,
                  const std::string& scratch, support::Random& random, bool knows_holes = true);

}  // namespace vc::interop
