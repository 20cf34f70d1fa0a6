// ext2, ext3 and ext4 (the kernel's Documentation/filesystems/ext4).
//
// libext2fs could read the bitmaps, but does not compare their counts, nor ask whether the journal
// must be replayed.
#pragma once

#include "guest/reading/reading.h"

namespace vc::guest {

extern const Format kExt;

}  // namespace vc::guest
