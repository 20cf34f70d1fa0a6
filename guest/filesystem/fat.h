// FAT12, FAT16 and FAT32 (Microsoft's FAT specification of 2004).
#pragma once

#include "guest/reading/reading.h"

namespace vc::guest {

extern const Format kFat;

}  // namespace vc::guest
