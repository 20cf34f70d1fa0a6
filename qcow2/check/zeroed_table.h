// Tables, and parts of tables, that contain only zeros.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "qcow2/check/finding.h"
#include "qcow2/check/l2_check.h"
#include "qcow2/format/geometry.h"
#include "storage/offset.h"

namespace vc::qcow2 {

// A table, or a part of one, that contains only zeros.
struct ZeroedTable {
  Finding::Place place = Finding::Place::kL2Table;
  HostOffset at;
  uint64_t entries = 0;
  bool whole = true;
  GuestOffset guest;          // of the first entry; unused for bitmaps
  uint64_t guest_length = 0;  // bytes
  uint32_t snapshot = Finding::kActive;
  uint64_t index = 0;  // kBitmapTable: index of the bitmap
  // The cluster that would follow the previous entry's, and the one that would precede the next
  // entry's; 0: unknown.
  uint64_t follows = 0;
  uint64_t precedes = 0;
};

// Appends the zeroed parts of an L2 table to `out`.  `bytes` is the whole table; empty for a hole.
void find_zeroed_parts(const TableReference& table, std::span<const std::byte> bytes,
                       const Geometry& geometry, std::vector<ZeroedTable>& out);

}  // namespace vc::qcow2
