// ext2, ext3 and ext4 (the kernel's Documentation/filesystems/ext4).
//
// libext2fs could read the bitmaps, but it neither compares their counts, nor checks whether the
// journal must be replayed.
#pragma once

#include "guest/reading/reading.h"

namespace vc::guest {

extern const Format kExt;

}  // namespace vc::guest
