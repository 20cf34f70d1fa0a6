// Linux's swap space (include/linux/swap.h), and sessions that are saved in it.
#pragma once

#include "guest/reading/reading.h"

namespace guest {

// What begins swap space and must stay: the page with the signature, of the largest page there is.
inline constexpr uint64_t kSwapKept = 64 << 10;  // bytes

extern const Format kSwap;

// Whether `head`, the first kSwapKept bytes of swap space, says that a session is saved in it.
bool has_saved_session(const Fields& head);

}  // namespace guest
