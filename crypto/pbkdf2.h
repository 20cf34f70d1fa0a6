// The key derivation of LUKS.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "base/result.h"

namespace vc::crypto {

// Returns whether work that takes seconds is no longer wanted.  An empty function: never.
using IsStopped = std::function<bool()>;

// Fills `key` by PBKDF2 with HMAC of a hash, which is a number of libgcrypt.  Returns
// Error::cancelled() soon after `stopped` returns true.
//
// libgcrypt's own function cannot be stopped, and a hostile header makes it run for minutes.
Result<void> pbkdf2(int hash, std::span<const std::byte> passphrase,
                    std::span<const std::byte> salt, uint32_t iterations, std::span<std::byte> key,
                    const IsStopped& stopped = {});

}  // namespace vc::crypto
