// exFAT (Microsoft's exFAT file system specification).
#pragma once

#include "guest/reading/reading.h"

namespace vc::guest {

extern const Format kExfat;

}  // namespace vc::guest
