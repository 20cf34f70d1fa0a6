// A table of snapshots that says too little or too much, written anew without a loss.
#pragma once

#include <memory>

#include "base/result.h"
#include "qcow2/format/header.h"
#include "storage/storage.h"

namespace qcow2 {

// Gives each row of a version 3 image the sizes of its VM state and of its disk (where a row does
// not say it, as QEMU: the 32-bit field, and the size of the image's disk), leaves out extra data
// past the limit, which no known program writes, and corrects a count of snapshots that is past the
// limit to the number of rows that there are.  False, and nothing is written, if the table is not
// to be read as one, or is good.
//
// No count in the image may be too low.  The new table is in the file, and counted, before the
// header points to it; the old one leaks by this.
Result<bool> repair_snapshot_table(const std::shared_ptr<Storage>& storage, const Header& header);

}  // namespace qcow2
