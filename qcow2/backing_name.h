// The name of the backing file in a header.
#pragma once

#include "qcow2/result.h"
#include "qcow2/storage.h"

namespace qcow2 {

// Takes the backing file's name, and its format, out of the header of the image in `storage`: what
// the image leaves to it reads as zeros from now on.  Flushed before and after.
//
// It is one write within the first sector (QCOW2 text, "Header": the name's offset and length, at 8
// and 16), so that a crash leaves the one or the other. Where the extensions reach beyond that
// sector, that of the format stays where it is: without a name it means nothing.
Result<void> drop_backing_name(Storage& storage);

}  // namespace qcow2
