// Every reference that the metadata of an image makes to a cluster of its file: what the refcounts
// should say (QCOW2 text, "Host cluster management").
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

namespace qcow2 {

// The image is not written meanwhile.  Not thread-safe.
class References {
 public:
  // `times` references to each of `count` clusters from `first` on.
  using Visit = std::function<void(HostCluster first, uint64_t count, uint64_t times)>;
  // One L2 table of `tables` is done: for who shows how far a long walk is.
  using TableDone = std::function<void(uint64_t tables)>;

  // Reads the L1 tables, the refcount table and the directory of bitmaps.  All of them must lie
  // within the file and apart from each other, so that no image is more work than its file is long.
  static Result<References> find(const Image& image);

  // Those alone that one L1 table makes: to L2 tables, and through them to the guest's clusters;
  // not to the table itself.  It must lie within the file.
  static Result<References> find_disk(const Image& image, HostOffset l1_table, uint64_t l1_entries);

  // Calls `visit` for all, reading each L2 table once.  An entry that points behind the end of the
  // file, or not to the start of a cluster, is an error.
  Result<void> visit(const Visit& visit, const TableDone& table_done = {}) const;

  // An L2 table that the active L1 (or the one of find_disk ()) table points to: for those who look
  // at its entries.
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
  std::vector<Range> tables_;         // all but L2 tables, one reference each
  std::vector<HostOffset> clusters_;  // refcount blocks and the bitmaps' data, one reference each
  // Offsets of L2 tables, and how many L1 entries point to each.
  std::vector<std::pair<uint64_t, uint64_t>> l2_tables_;
  std::vector<Range> bitmap_tables_;  // those of tables_ that are such
  size_t compacted_ = 0;              // entries of l2_tables_ when it was last sorted
  std::vector<Table> active_tables_;
};

}  // namespace qcow2
