// The name of the backing file in a header.
#pragma once

#include <string>

#include "base/result.h"
#include "storage/storage.h"

namespace qcow2 {

// Takes the backing file's name, and its format, out of the header of the image in `storage`: what
// the image leaves to it reads as zeros from now on.  Flushed before and after.
//
// It is one write within the first sector (QCOW2 text, "Header": the name's offset and length, at 8
// and 16), so that a crash leaves the one or the other. Where the extensions reach beyond that
// sector, that of the format stays where it is: without a name it means nothing.
Result<void> drop_backing_name(Storage& storage);

// Puts `name` and `format` there, neither of them empty.  Nothing else of the image changes: that
// the disk reads as before is up to the caller.  Flushed before and after.
//
// A crash leaves the one name or the other: the last write is that of the first sector.  A name
// that does not fit into it is written before, to a place in the first cluster that the header does
// not use.  The table of feature names, which QEMU makes again, is dropped where the extensions
// would not fit; an error if they do not even then, or the cluster is too small for the name.
Result<void> set_backing_name(Storage& storage, const std::string& name, const std::string& format);

}  // namespace qcow2
