// Reads the journal of XFS.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "guest/reading/byte_view.h"

namespace vc::guest {

// Returns an error unless the last record of the log shows that the filesystem was unmounted. `at`:
// place of the log, bytes of the view. `sectors`: its length, in units of 512 bytes.
Result<void> check_xfs_log(const ByteView& view, uint64_t at, uint64_t sectors);

}  // namespace vc::guest
