// XFS, versions 4 and 5 (XFS Algorithms & Data Structures, 3rd edition).
#pragma once

#include "guest/reading/reading.h"

namespace vc::guest {

extern const Format kXfs;

}  // namespace vc::guest
