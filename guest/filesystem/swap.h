// Linux's swap space (include/linux/swap.h), and sessions that are saved in it.
#pragma once

#include "guest/reading/reading.h"

namespace vc::guest {

// What begins swap space and must stay: the page with the signature, of the largest page there is.
inline constexpr uint64_t kSwapKept = 64 << 10;  // bytes

extern const Format kSwap;

inline constexpr const char* kHasSession = "a session is saved in it";

// Whether `head`, the first kSwapKept bytes of swap space, says that a session is saved in it.
bool has_saved_session(const Fields& head);

// Returns where the pages end that swap space of `size` bytes has by its header, in bytes.  An
// error if the header is not one of version 1, or tells of more than there is.
Result<uint64_t> swap_end(const Fields& head, uint64_t size);

}  // namespace vc::guest
