// Autoclear bits of the header that this program does not know.
#pragma once

#include "base/result.h"
#include "qcow2/format/header.h"
#include "storage/storage.h"

namespace vc::qcow2 {

// Clears these bits in the file, since their data may depend on the places of clusters; flushes.
// `header` is that of the file.
Result<void> clear_unknown_autoclear(Storage& storage, const Header& header);

}  // namespace vc::qcow2
