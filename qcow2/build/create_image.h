// A fresh image without any data.
#pragma once

#include <string>

#include "base/result.h"
#include "qcow2/build/builder.h"
#include "storage/descriptor.h"

namespace qcow2 {

// Makes the image at `path`, where nothing may be.  It appears there when it is whole and on disk,
// and on an error not at all.
// The image itself is returned, whatever has its name by now.
Result<Descriptor> create_image(const std::string& path, const BuildOptions& options);

}  // namespace qcow2
