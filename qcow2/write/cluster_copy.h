// Copies of clusters within a file.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "storage/offset.h"
#include "storage/storage.h"

namespace vc::qcow2 {

// Copies the `length` bytes of whole clusters at `from` to `to`, with zeros as holes.
Result<void> copy_cluster(Storage& storage, HostOffset from, HostOffset to, uint64_t length);

}  // namespace vc::qcow2
