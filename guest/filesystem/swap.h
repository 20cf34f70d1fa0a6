// Linux's swap space (include/linux/swap.h), and sessions that are saved in it.
#pragma once

#include "guest/reading/reading.h"

namespace vc::guest {

// Bytes at the start of swap space that must be kept: the largest possible page, with the
// signature.
inline constexpr uint64_t kSwapKept = 64 << 10;  // bytes

extern const Format kSwap;

inline constexpr const char* kHasSession = "a session is saved in it";

// Returns true if a session is saved in swap space. `head`: its first kSwapKept bytes.
bool has_saved_session(const Fields& head);

// Returns the end of the pages that the header of swap space declares, in bytes. `size`: of the
// swap space, bytes. Returns an error if the header is not of version 1, or declares more than
// `size`.
Result<uint64_t> swap_end(const Fields& head, uint64_t size);

}  // namespace vc::guest
