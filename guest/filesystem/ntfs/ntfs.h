// NTFS of Windows 2000 and later (layouts: libntfs-3g's documentation of the format).
#pragma once

#include "guest/reading/reading.h"

namespace vc::guest {

extern const Format kNtfs;

}  // namespace vc::guest
