// Header extensions that a copy does not have.
#pragma once

#include <string>

#include "qcow2/format/header.h"

namespace vc::copy {

// Returns one line without the name of the image, which says that its unknown header extensions are
// not copied; empty if it has none.
std::string describe_unknown_extensions(const qcow2::Header& header);

}  // namespace vc::copy
