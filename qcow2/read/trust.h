// How far the maker of an image is trusted.
#pragma once

#include <optional>

#include "qcow2/read/image_limits.h"
#include "qcow2/read/named_files.h"

namespace qcow2 {

struct Trust {
  NamePolicy names;
  // Of an image that anybody may have made; nothing: only those of the format.
  std::optional<ImageLimits> limits;
};

// Checks the header of an image whose maker is not trusted: encryption, names that are denied, and
// the limits.  For those who read headers without opening a chain.
Result<void> check_untrusted_header(const Header& header, const Trust& trust);

}  // namespace qcow2
