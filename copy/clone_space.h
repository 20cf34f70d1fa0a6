// The space of a copy that shares blocks with its source.
#pragma once

#include <cstdint>
#include <optional>

#include "base/cancel.h"
#include "base/result.h"
#include "copy/copy_options.h"

namespace vc::copy {

// Returns the maximum bytes that a copy to a file will take, with its metadata, if plain data is
// cloned. nullopt if nothing can be cloned. Uses a temporary file without a name in the folder of
// the destination.
Result<std::optional<uint64_t>> space_with_clones(const CopyOptions& options, const Cancel& cancel);

}  // namespace vc::copy
