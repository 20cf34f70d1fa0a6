// All references of an image's metadata to clusters of its file: the basis of correct refcounts
// (qcow2 specification, "Host cluster management").
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "base/result.h"
#include "qcow2/format/l2_entry.h"
#include "qcow2/read/image.h"
#include "storage/offset.h"

namespace vc::qcow2 {

// The image must not be written meanwhile.  Not thread-safe.
class References {
 public:
  // Receives `times` references to each of `count` clusters from `first`.
  using Visit = std::function<void(HostCluster first, uint64_t count, uint64_t times)>;
  // Called after each L2 table, with the total `tables`: for progress reports.
  using TableDone = std::function<void(uint64_t tables)>;

  // Reads the L1 tables, the refcount table and the bitmap directory.  All must be within the file
  // and must not overlap, so that the work is bounded by the length of the file.
  static Result<References> find(const Image& image);

  // Finds only the references of one L1 table: to L2 tables and the guest's clusters, not to the L1
  // table itself.  The table must be within the file.
  static Result<References> find_disk(const Image& image, HostOffset l1_table, uint64_t l1_entries);

  // Calls `visit` for all references; reads each L2 table once.  An entry that is unaligned, or
  // points past the end of the file, is an error.
  Result<void> visit(const Visit& visit, const TableDone& table_done = {}) const;

  // An L2 table of the active L1 table (or of find_disk ()), for callers that process its entries.
  struct Table {
    uint64_t l1_index;
    uint64_t l1_entry;
  };
  const std::vector<Table>& active_tables() const { return active_tables_; }

 private:
  struct Range {
    HostOffset at;
    uint64_t length;  // bytes
    const char* what;
  };
  explicit References(const Image& image) : image_(&image) {}

  Result<void> add(HostOffset at, uint64_t length, const char* what);
  Result<std::vector<uint64_t>> read_words(HostOffset at, uint64_t count, const char* what) const;
  Result<void> add_bitmaps();
  Result<void> read_l1_table(HostOffset at, uint64_t entries, bool active);
  Result<void> read_refcount_table();
  Result<void> read_bitmap_tables();
  Result<void> check_apart();
  Result<void> visit_table(HostOffset table, uint64_t times, const Visit& visit) const;
  Result<void> visit_entry(L2Entry entry, uint64_t times, const Visit& visit) const;
  Result<HostOffset> cluster_at(uint64_t entry, const char* what) const;

  const Image* image_;
  uint64_t file_size_ = 0;
  std::vector<Range> tables_;         // all but L2 tables, with one reference each
  std::vector<HostOffset> clusters_;  // refcount blocks and bitmap data, with one reference each
  // Offsets of L2 tables, and the number of L1 entries that point to each.
  std::vector<std::pair<uint64_t, uint64_t>> l2_tables_;
  std::vector<Range> bitmap_tables_;  // the bitmap tables among tables_
  size_t compacted_ = 0;              // entries of l2_tables_ when it was last sorted
  std::vector<Table> active_tables_;
};

}  // namespace vc::qcow2
