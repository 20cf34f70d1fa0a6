// The trust in the author of an image, and what opens its content.
#pragma once

#include <memory>
#include <optional>

#include "crypto/secret.h"
#include "qcow2/read/image_limits.h"
#include "qcow2/read/named_files.h"

namespace vc::qcow2 {

struct Trust {
  NamePolicy names = {};
  // Limits for an image of an unknown author; nullopt: only those of the format.
  std::optional<ImageLimits> limits = {};
  // The passphrases of encrypted images; nullptr: none.  Each is tried on each image of a chain.
  std::shared_ptr<const crypto::KeyRing> keys = nullptr;
};

// Checks the header of an untrusted image: encryption, denied names, and the limits.  For callers
// that read headers without opening a chain.
Result<void> check_untrusted_header(const Header& header, const Trust& trust);

}  // namespace vc::qcow2
