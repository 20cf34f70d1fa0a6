// Checks at memory speed whether a buffer contains only zeros.
#pragma once

#include <cstddef>
#include <span>

namespace vc {

bool is_zero(std::span<const std::byte> bytes);

}  // namespace vc
