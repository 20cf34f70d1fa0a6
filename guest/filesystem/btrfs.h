// btrfs on one device (btrfs's documentation of its on-disk format).
#pragma once

#include "guest/reading/reading.h"

namespace vc::guest {

extern const Format kBtrfs;

}  // namespace vc::guest
