// All references of an image's metadata to clusters of its file: the basis of correct refcounts
// (qcow2 specification, "Host cluster management").
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "base/result.h"
#include "qcow2/format/bitmap_directory.h"
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

  // A word of the metadata that points to a table or to clusters.
  struct Pointer {
    HostOffset at;       // of the word in the file: 8 bytes, big-endian, at a multiple of 8
    uint64_t word = 0;   // its value, with flags
    uint64_t bytes = 0;  // length of what it points to; unused for entries of L2 tables
    uint64_t times = 1;  // the references that the word stands for
  };
  // Groups of pointers: those of a level are in structures that the levels above point to.
  enum class Level {
    kRoots,     // in the header: to the L1 table, the snapshot table, the directory of bitmaps
    kTables,    // in these: to the L1 tables of snapshots, and the tables of bitmaps
    kInner,     // in L1 tables and tables of bitmaps: to L2 tables, and data of bitmaps
    kClusters,  // in L2 tables: to the clusters of guests, as L2 entries
  };
  // Calls `visit` for the pointers of a level, as they are in the file now; not for null pointers,
  // nor for those of the refcount table.  The structures above the level must not have moved since
  // find ().  Returns the first error of `visit`.  With an external data file, kClusters has none.
  using PointerVisit = std::function<Result<void>(const Pointer& pointer)>;
  Result<void> visit_pointers(Level level, const PointerVisit& visit) const;

  // Returns the L2 tables in the order of guests, each once: those of the active disk first, then
  // those that only snapshots have.
  Result<std::vector<HostOffset>> tables_in_order() const;
  // Calls `visit` for the pointers of kClusters in one L2 table; `times` is 1.
  Result<void> visit_pointers_of(HostOffset table, const PointerVisit& visit) const;

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
  template <typename Each>
  Result<void> each_entry(HostOffset table, const Each& each) const;
  Result<void> visit_roots(const PointerVisit& visit) const;
  Result<void> visit_table_pointers(const PointerVisit& visit) const;
  Result<void> visit_l1_tables(const PointerVisit& visit) const;
  Result<void> visit_inner(const PointerVisit& visit) const;
  Result<void> visit_clusters(HostOffset table, uint64_t times, const PointerVisit& visit) const;
  Result<void> visit_words_of(HostOffset table, uint64_t words, const char* what,
                              const PointerVisit& visit) const;
  Result<void> visit_entry(L2Entry entry, uint64_t times, const Visit& visit) const;
  Result<HostOffset> cluster_at(uint64_t entry, const char* what) const;

  const Image* image_;
  uint64_t file_size_ = 0;
  std::vector<Range> tables_;         // all but L2 tables, with one reference each
  std::vector<HostOffset> clusters_;  // refcount blocks and bitmap data, with one reference each
  // Offsets of L2 tables, and the number of L1 entries that point to each.
  std::vector<std::pair<uint64_t, uint64_t>> l2_tables_;
  std::vector<Range> bitmap_tables_;  // the bitmap tables among tables_
  BitmapDirectory bitmaps_;
  size_t compacted_ = 0;  // entries of l2_tables_ when it was last sorted
  std::vector<Table> active_tables_;
};

}  // namespace vc::qcow2
