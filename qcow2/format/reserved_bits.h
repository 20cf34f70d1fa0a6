// Bits of table entries that must be zero.
#pragma once

#include <cstdint>

namespace vc::qcow2 {

// Of an L1 entry (qcow2 specification, "L1 table entry").
inline constexpr uint64_t kReservedInL1Entry = 0x7f000000000001ff;
// Of an uncompressed L2 entry (qcow2 specification, "Standard Cluster Descriptor").
inline constexpr uint64_t kReservedInEntry = 0x3f000000000001fe;

}  // namespace vc::qcow2
