// The journal of XFS.
#pragma once

#include <cstdint>

#include "guest/byte_view.h"
#include "qcow2/result.h"

namespace guest {

// An error unless the last record of the log says that the filesystem was unmounted.  `at` is in
// bytes of the view, `sectors` of 512 bytes.
qcow2::Result<void> check_xfs_log(const ByteView& view, uint64_t at, uint64_t sectors);

}  // namespace guest
