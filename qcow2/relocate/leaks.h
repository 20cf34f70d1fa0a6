// The check before an image is compacted, and its leaks.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/cancel.h"
#include "base/progress.h"
#include "base/result.h"
#include "storage/storage.h"

namespace vc::qcow2 {

// Counters of the check, in bytes.
constexpr uint64_t kCountMemory = 64 << 20;

// Checks the image, and returns the number of leaked clusters.  Any other damage is an error, whose
// advice is `repair_by`.
Result<uint64_t> count_leaks(const Storage& storage, const std::string& repair_by,
                             Progress& progress, const Cancel& cancel);

// Frees the leaks of an image that is consistent otherwise.  Returns the leaks that are left: those
// that may be data of a table of zeros.
Result<uint64_t> free_leaks(const std::shared_ptr<Storage>& storage, Progress& progress,
                            const Cancel& cancel);

}  // namespace vc::qcow2
