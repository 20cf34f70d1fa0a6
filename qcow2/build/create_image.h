// Creates an image without data.
#pragma once

#include <string>

#include "base/result.h"
#include "qcow2/build/builder.h"
#include "storage/descriptor.h"

namespace vc::qcow2 {

// Creates the image at `path`, which must not exist.  The name appears once the image is complete
// and on disk; on an error it does not appear.
//
// Returns a descriptor of the image itself, even if its name changes meanwhile.
Result<Descriptor> create_image(const std::string& path, const BuildOptions& options);

}  // namespace vc::qcow2
