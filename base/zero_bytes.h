// Is a buffer all zeros?  At memory speed.
#pragma once

#include <cstddef>
#include <span>

namespace qcow2 {

bool is_zero(std::span<const std::byte> bytes);

}  // namespace qcow2
