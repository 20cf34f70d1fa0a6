// The header of a new image.
#pragma once

#include "base/result.h"
#include "qcow2/format/build_options.h"
#include "qcow2/format/header.h"

namespace vc::qcow2 {

// Returns a header as the options say, without the places of tables.  An error if it does not fit
// into one cluster.
Result<Header> fresh_header(const BuildOptions& options, uint32_t l1_entries);

}  // namespace vc::qcow2
