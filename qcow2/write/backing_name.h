// Changes the backing file name in a header.
#pragma once

#include <string>

#include "base/result.h"
#include "storage/storage.h"

namespace vc::qcow2 {

// Removes the backing file's name and format from the header of the image in `storage`: unallocated
// ranges read as zeros from then on.  Flushes before and after.
//
// Does one write in the first sector (qcow2 specification, "Header": the name's offset and length,
// at 8 and 16), so that a crash leaves the old or the new header.  If the extensions extend past
// that sector, the format's extension stays: it has no effect without a name.
Result<void> drop_backing_name(Storage& storage);

// Sets the name and format, both not empty.  Changes nothing else: the caller must ensure that the
// disk's content stays the same.  Flushes before and after.
//
// A crash leaves the old or the new name: the last write is that of the first sector.  A name that
// does not fit into that sector is written first, to a part of the first cluster that the header
// does not use.  If the extensions do not fit, drops the table of feature names, which QEMU writes
// again; an error if they still do not fit, or if the cluster is too small for the name.
Result<void> set_backing_name(Storage& storage, const std::string& name, const std::string& format);

}  // namespace vc::qcow2
