// The places of the fields in the QCOW2 header (qcow2 specification, "Header").
#pragma once

#include <cstdint>

#include "base/result.h"
#include "storage/offset.h"
#include "storage/storage.h"

namespace vc::qcow2 {

namespace header_field {

// In bytes from the start of the file.  All numbers are big-endian; the comments have their bytes.
inline constexpr uint64_t kMagic = 0;                   // 4
inline constexpr uint64_t kVersion = 4;                 // 4
inline constexpr uint64_t kBackingName = 8;             // 8: offset of the backing file name
inline constexpr uint64_t kBackingNameLength = 16;      // 4: bytes
inline constexpr uint64_t kClusterBits = 20;            // 4
inline constexpr uint64_t kSize = 24;                   // 8: bytes of the virtual disk
inline constexpr uint64_t kCryptMethod = 32;            // 4
inline constexpr uint64_t kL1Entries = 36;              // 4
inline constexpr uint64_t kL1Table = 40;                // 8
inline constexpr uint64_t kRefcountTable = 48;          // 8
inline constexpr uint64_t kRefcountTableClusters = 56;  // 4
inline constexpr uint64_t kSnapshotCount = 60;          // 4
inline constexpr uint64_t kSnapshotTable = 64;          // 8
// From version 3 on.
inline constexpr uint64_t kIncompatible = 72;      // 8: feature bits
inline constexpr uint64_t kCompatible = 80;        // 8
inline constexpr uint64_t kAutoclear = 88;         // 8
inline constexpr uint64_t kRefcountOrder = 96;     // 4
inline constexpr uint64_t kHeaderLength = 100;     // 4: bytes
inline constexpr uint64_t kCompressionType = 104;  // 1

// Bytes of fields that change together, in one write within one sector.
inline constexpr uint64_t kBackingNameFields = kClusterBits - kBackingName;
inline constexpr uint64_t kDiskFields = kRefcountTable - kSize;  // size to L1 table
inline constexpr uint64_t kRefcountTableFields = kSnapshotCount - kRefcountTable;
inline constexpr uint64_t kSnapshotFields = kIncompatible - kSnapshotCount;
inline constexpr uint64_t kFeatureFields = kRefcountOrder - kIncompatible;

}  // namespace header_field

// Write these fields of the header.  The caller flushes before and after.
Result<void> write_refcount_table_fields(Storage& storage, HostOffset table, uint32_t clusters);
Result<void> write_snapshot_fields(Storage& storage, uint32_t count, HostOffset table);
// The bits of version 3.
Result<void> write_feature_fields(Storage& storage, uint64_t incompatible, uint64_t compatible,
                                  uint64_t autoclear);

}  // namespace vc::qcow2
