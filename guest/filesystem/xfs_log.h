// The journal of XFS.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "guest/reading/byte_view.h"

namespace vc::guest {

// An error unless the last record of the log says that the filesystem was unmounted.  `at` is in
// bytes of the view, `sectors` of 512 bytes.
Result<void> check_xfs_log(const ByteView& view, uint64_t at, uint64_t sectors);

}  // namespace vc::guest
