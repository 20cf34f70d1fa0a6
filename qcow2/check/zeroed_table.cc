#include "qcow2/check/zeroed_table.h"

#include "base/zero_bytes.h"
#include "qcow2/format/l2_entry.h"

namespace vc::qcow2 {

namespace {

// Returns the cluster of an uncompressed entry; 0 if it has none.
uint64_t cluster_of(const L2Entry& entry, const Geometry& geometry) {
  return entry.compressed() ? 0 : geometry.host_cluster_of(entry.host()).value();
}

}  // namespace

void find_zeroed_parts(const TableReference& table, std::span<const std::byte> bytes,
                       const Geometry& geometry, std::vector<ZeroedTable>& out) {
  ZeroedTable whole;
  whole.at = table.at;
  whole.entries = geometry.l2_entries();
  whole.guest = GuestOffset(table.l1_index * geometry.l2_reach());
  whole.guest_length = geometry.l2_reach();
  whole.snapshot = table.active > 0 ? Finding::kActive : table.snapshot;
  if (is_zero(bytes)) {
    out.push_back(whole);
    return;
  }
  const uint64_t entry_size = geometry.l2_entry_size();
  const bool extended = geometry.extended_l2();
  for (uint64_t begin = 0; begin < bytes.size(); begin += Geometry::kSectorSize) {
    uint64_t end = begin;
    while (end < bytes.size() && is_zero(bytes.subspan(end, Geometry::kSectorSize)))
      end += Geometry::kSectorSize;
    if (end == begin) continue;
    const uint64_t first = begin / entry_size, stop = end / entry_size;
    begin = end - Geometry::kSectorSize;
    // A hole that continues inside a sector is the guest's own.
    const auto entry = [&](uint64_t i) { return load_l2_entry(bytes, i, extended); };
    const bool at_start = first == 0, at_end = stop == whole.entries;
    if ((!at_start && entry(first - 1).word == 0) || (!at_end && entry(stop).word == 0)) continue;
    ZeroedTable part = whole;
    part.whole = false;
    part.at = table.at + first * entry_size;
    part.entries = stop - first;
    part.guest += first * geometry.cluster_size();
    part.guest_length = part.entries * geometry.cluster_size();
    if (!at_start && cluster_of(entry(first - 1), geometry) != 0)
      part.follows = cluster_of(entry(first - 1), geometry) + 1;
    if (!at_end && cluster_of(entry(stop), geometry) != 0)
      part.precedes = cluster_of(entry(stop), geometry) - 1;
    out.push_back(part);
  }
}

}  // namespace vc::qcow2
