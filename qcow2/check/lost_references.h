// Finds tables that were overwritten with zeros: their references then look like leaks.
//
// A table of zeros is valid.  Its clusters keep their counts and lose their references; freeing
// them would destroy guest data.  The evidence is a table of zeros (or a 512-byte sector of one,
// the unit in which disks lose data) together with matching leaks:
//
//     a whole L2 table           any leak
//     sectors of an L2 table     unreferenced clusters next to the data of the neighbouring
//     entries,
//                                or about as many of them (half to all) as there are zero entries,
//                                unless other known damage explains them
//     an L1 table, or sectors    a leaked cluster that contains an L2 table
//     the table of a stored      any leak
//     bitmap
//
// Leaks of another origin can match, too.  They stay unless the user requests --lossy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "qcow2/check/finding.h"
#include "qcow2/check/zeroed_table.h"
#include "qcow2/format/header.h"
#include "storage/storage.h"

namespace vc::qcow2 {

class LostReferences {
 public:
  LostReferences() = default;
  // `storage` must outlive the object.
  LostReferences(const Storage& storage, const Header& header, uint64_t file_size)
      : storage_(&storage), header_(header), file_size_(file_size) {}

  void add(std::span<const ZeroedTable> zeroed);
  // Reads an L1 table of the disk of `snapshot`.
  void add_l1(HostOffset at, uint64_t entries, uint32_t snapshot);
  // Reads the table of a bitmap.
  void add_bitmap(HostOffset at, uint64_t bytes, uint64_t bitmap);
  // Adds a run of leaked clusters; `references` is the number of references to each.
  void add_leak(HostCluster first, uint64_t count, uint64_t references);

  // Reports each table that seems to have lost its references to `found`, at most kMostTold tables.
  // `counts_unknown`: leaks are indistinguishable from free clusters.  `damage_known`: other damage
  // hides references.  Returns whether there is such a table.
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
  // Returns whether a leaked cluster looks like an L2 table.
  bool any_leaked_table() const;
  bool is_table(HostCluster cluster, uint64_t& budget) const;
  void add_zero_words(ZeroedTable part, HostOffset at, std::span<const uint64_t> words,
                      uint64_t first, bool all_of_it);

  const Storage* storage_ = nullptr;
  Header header_;
  uint64_t file_size_ = 0;
  std::vector<ZeroedTable> zeroed_;
  bool too_many_ = false;  // more parts than are kept
  std::vector<Leak> leaks_;
  uint64_t unreferenced_ = 0;  // leaked clusters without a reference
  uint64_t leaked_ = 0;        // clusters
  uint64_t table_bytes_ = 0;   // of the L1 tables and bitmap tables read
};

}  // namespace vc::qcow2
