// The places of the fields in an entry of the snapshot table (qcow2 specification, "Snapshots").
#pragma once

#include <cstdint>

namespace vc::qcow2::snapshot_field {

// In bytes from the start of the entry, which begins at a multiple of 8.
inline constexpr uint64_t kL1Table = 0;           // 8
inline constexpr uint64_t kL1Entries = 8;         // 4
inline constexpr uint64_t kIdLength = 12;         // 2: bytes
inline constexpr uint64_t kNameLength = 14;       // 2: bytes
inline constexpr uint64_t kDateSeconds = 16;      // 4
inline constexpr uint64_t kDateNanoseconds = 20;  // 4
inline constexpr uint64_t kVmClock = 24;          // 8: nanoseconds
inline constexpr uint64_t kVmStateSize = 32;      // 4: bytes
inline constexpr uint64_t kExtraLength = 36;      // 4: bytes
// The length of these fields; extra data, ID and name follow.
inline constexpr uint64_t kFixedBytes = 40;

// Fields in the extra data, from its start, and the least length of data that has each of them.
inline constexpr uint64_t kExtraVmStateSize = 0;  // 8: bytes
inline constexpr uint32_t kWithVmStateSize = 8;
inline constexpr uint64_t kExtraDiskSize = 8;  // 8: bytes; version 3 requires it
inline constexpr uint32_t kWithDiskSize = 16;
inline constexpr uint64_t kExtraInstructionCount = 16;  // 8
inline constexpr uint32_t kWithInstructionCount = 24;

}  // namespace vc::qcow2::snapshot_field
