// The trust in the author of an image.
#pragma once

#include <optional>

#include "qcow2/read/image_limits.h"
#include "qcow2/read/named_files.h"

namespace vc::qcow2 {

struct Trust {
  NamePolicy names;
  // Limits for an image of an unknown author; nullopt: only those of the format.
  std::optional<ImageLimits> limits;
};

// Checks the header of an untrusted image: encryption, denied names, and the limits.  For callers
// that read headers without opening a chain.
Result<void> check_untrusted_header(const Header& header, const Trust& trust);

}  // namespace vc::qcow2
