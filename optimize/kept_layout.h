// What a fresh image takes over from the image that it replaces.
#pragma once

#include <cstddef>

#include "copy/copy_options.h"
#include "qcow2/format/header.h"

namespace vc::optimize {

// Sets the options of the layout that the user has not set to the values of the image with this
// header. Version 2 stays if no option needs version 3. The refcounts become wider if they are too
// narrow for the number of `snapshots`.
void keep_layout(const qcow2::Header& header, size_t snapshots, copy::CopyOptions& how);

}  // namespace vc::optimize
