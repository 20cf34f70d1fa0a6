// What a fresh image takes over from the image that it replaces.
#pragma once

#include "copy/copy_options.h"
#include "qcow2/format/header.h"

namespace vc::optimize {

// Sets the options of the layout that the user has not set to the values of the image with this
// header.
void keep_layout(const qcow2::Header& header, copy::CopyOptions& how);

}  // namespace vc::optimize
