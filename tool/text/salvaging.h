// Damaged images, as commands that read whole disks treat them.
#pragma once

#include <string_view>

#include "base/result.h"

namespace vc::tool {

// The exit code of a copy that is complete except for lost data.
inline constexpr int kSalvaged = 4;

// Appends `advice` to an error about damage of an image.  Returns other errors as they are.
Error advise_salvage(
    const Error& error,
    std::string_view advice = "virt-compact copy --salvage copies the readable data");

}  // namespace vc::tool
