// What an NBD server shows of a QCOW2 image, against the bytes that QEMU read from it.
#pragma once

#include <string>

#include "qcow2/read/disk.h"
#include "tests/interop/image_maker.h"
#include "tests/support/nbd_server.h"
#include "tests/support/random.h"

namespace vc::interop {

// How the plugin and the qcow2 filter call it.
std::string export_name(const MadeDisk& disk);

// Where nbdcopy's copy of the disk at `uri` differs from `raw`; empty: nowhere.  `scratch`: path of
// a file that is made, and gone afterwards.
std::string copy_complaint(const std::string& uri, const std::string& raw,
                           const std::string& scratch);

// Checks that the read-only export `name` has the bytes of the file `raw`, and the map of `disk`.
// One that is `huge` is not read through by qemu-img, too.  `knows_holes`: the server can tell
// holes of the image file.
void check_export(const support::NbdServer& server, const std::string& name,
                  const qcow2::Disk& disk, const std::string& raw, bool huge,
                  const std::string& scratch, support::Random& random, bool knows_holes = true);

}  // namespace vc::interop
