// Walks all structures of an image that refer to clusters, and adds their references.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "qcow2/check/bitmap_scan.h"
#include "qcow2/check/check_tally.h"
#include "qcow2/check/checked_image.h"
#include "qcow2/check/l1_check.h"
#include "qcow2/check/metadata_map.h"
#include "qcow2/check/recorded_counts.h"
#include "qcow2/check/reference_counts.h"
#include "qcow2/check/snapshot_scan.h"
#include "qcow2/check/table_ranges.h"
#include "qcow2/check/table_walk.h"

namespace vc::qcow2 {

// Used for one traversal.  Not thread-safe.
class ReferenceWalk {
 public:
  // What was read of the image before.
  struct Scans {
    const SnapshotScan& snapshots;
    const BitmapScan& bitmaps;
    const RecordedCounts& recorded;
  };

  // All arguments must outlive the object.
  ReferenceWalk(const CheckedImage& image, const Scans& scans, TableWalk& tables, CheckTally& tally)
      : image_(image), geometry_(image.geometry), scans_(scans), tables_(tables), tally_(tally) {}

  // Adds all references, except those to refcount blocks, to `counts`.  Without `with_refcounts`
  // omits the refcount table.
  Result<void> walk(bool with_refcounts, ReferenceCounts& counts);

 private:
  void refer(Finding::Place place, HostOffset at, uint64_t length, HostOffset entry,
             uint64_t times = 1);
  void report_outside(Finding::Place place, HostOffset at, uint64_t length, HostOffset entry,
                      uint64_t times);
  void refer_encryption_header();
  template <typename Entry>
  Result<void> for_each_word(Finding::Place place, const TableRanges& tables, uint32_t active,
                             const Entry& entry);
  Result<void> refer_bitmaps();
  void refer_bitmap_entry(HostOffset entry, uint64_t word, const TableRanges::Piece& piece);
  TableRanges refer_l1_tables();
  Result<void> refer_tables();
  Result<void> walk_tables(const std::vector<TableReference>& tables);
  void add_blocks_to_metadata();
  void finish_metadata();

  const CheckedImage& image_;
  const Geometry geometry_;
  const Scans scans_;
  TableWalk& tables_;
  CheckTally& tally_;
  MetadataMap metadata_;               // of the first pass
  ReferenceCounts* counts_ = nullptr;  // of this pass
};

}  // namespace vc::qcow2
