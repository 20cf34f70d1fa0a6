// Linux's swap space (include/linux/swap.h), and sessions that are saved in it.
#pragma once

#include "guest/reading.h"

namespace guest {

extern const Format kSwap;

}  // namespace guest
