// Opens the top image of a chain for writing.
#pragma once

#include <memory>

#include "base/result.h"
#include "qcow2/read/chain.h"
#include "qcow2/write/disk_writer.h"

namespace vc::qcow2 {

// The chain must have been opened writable.  At most one writer may exist at a time.  The chain's
// disk () must not be read while it exists, as the writer changes the data; disks of snapshots may
// be.
//
// Locks the image and its data file for writing.  A conflicting lock of another process is a system
// error (EBUSY).
Result<std::unique_ptr<DiskWriter>> open_writer(const Chain& chain,
                                                const DiskWriter::Options& options);

}  // namespace vc::qcow2
