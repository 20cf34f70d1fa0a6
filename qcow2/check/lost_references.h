// Finds tables that were overwritten with zeros: what they referred to looks like leaks.
//
// A zeroed table contradicts nothing in the format.  Its clusters keep their counts and lose their
// references, and to free them destroys the guest's data.  The evidence is a table (or a 512-byte
// sector of one, the unit that disks lose) that is all zeros, together with leaks that fit:
//
//     an L2 table, all of it      any leak
//     sectors of an L2 table      clusters without a reference next to the data of the neighbouring
//                                 entries, or about as many (half to all) as entries are zero,
//                                 unless other damage that is known explains them
//     an L1 table, or sectors     a leaked cluster whose content is an L2 table
//     the table of a bitmap that  any leak
//     was stored
//
// Leaks of another origin can fit, too: then they stay until somebody asks for --lossy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "qcow2/check/finding.h"
#include "qcow2/check/l2_check.h"
#include "qcow2/format/header.h"
#include "storage/storage.h"

namespace qcow2 {

// A table, or a part of it, that is all zeros.
struct ZeroedTable {
  Finding::Place place = Finding::Place::kL2Table;
  HostOffset at;
  uint64_t entries = 0;
  bool whole = true;
  GuestOffset guest;          // of the first entry; none for bitmaps
  uint64_t guest_length = 0;  // bytes
  uint32_t snapshot = Finding::kActive;
  uint64_t index = 0;  // kBitmapTable: which bitmap
  // Clusters that would follow the entry before, and precede the one after; 0: not known.
  uint64_t follows = 0;
  uint64_t precedes = 0;
};

// Appends the zeroed parts of an L2 table to `out`.  `bytes`: all of the table; empty: a hole.
void find_zeroed_parts(const TableReference& table, std::span<const std::byte> bytes,
                       const Geometry& geometry, std::vector<ZeroedTable>& out);

class LostReferences {
 public:
  LostReferences() = default;
  // `storage` must outlive it.
  LostReferences(const Storage& storage, const Header& header, uint64_t file_size)
      : storage_(&storage), header_(header), file_size_(file_size) {}

  void add(std::span<const ZeroedTable> zeroed);
  // Reads an L1 table, whose entries map a disk of `snapshot`.
  void add_l1(HostOffset at, uint64_t entries, uint32_t snapshot);
  // Reads the table of a bitmap.
  void add_bitmap(HostOffset at, uint64_t bytes, uint64_t bitmap);
  // `references`: that each of the clusters has.
  void add_leak(HostCluster first, uint64_t count, uint64_t references);

  // Tells `found` of each table whose references seem lost, at most kMostTold of them.
  // `counts_unknown`: leaks cannot be told from free clusters.  `damage_known`: other damage hides
  // references.  Returns whether there is any.
  bool judge(bool counts_unknown, bool damage_known,
             const std::function<void(const Finding&)>& found) const;

 private:
  struct Leak {
    uint64_t first;
    uint64_t count;
    uint64_t references;
  };

  bool fits(const ZeroedTable& zeroed, bool explained) const;
  bool leak_touches(uint64_t cluster) const;
  // A leaked cluster that reads as an L2 table.
  bool any_leaked_table() const;
  bool is_table(HostCluster cluster, uint64_t& budget) const;
  void add_zero_words(ZeroedTable part, HostOffset at, std::span<const uint64_t> words,
                      uint64_t first, bool all_of_it);

  const Storage* storage_ = nullptr;
  Header header_;
  uint64_t file_size_ = 0;
  std::vector<ZeroedTable> zeroed_;
  bool too_many_ = false;  // more than are kept
  std::vector<Leak> leaks_;
  uint64_t unreferenced_ = 0;  // clusters, of those that leak
  uint64_t leaked_ = 0;        // clusters
  uint64_t table_bytes_ = 0;   // of L1 tables and bitmaps that were read
};

}  // namespace qcow2
