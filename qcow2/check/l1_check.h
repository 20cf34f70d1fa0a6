// Checks the entries of L1 tables, and collects the L2 tables that they point to.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "qcow2/check/check_tally.h"
#include "qcow2/check/checked_image.h"
#include "qcow2/check/l2_check.h"
#include "qcow2/check/recorded_counts.h"
#include "qcow2/check/table_ranges.h"

namespace vc::qcow2 {

// Not thread-safe.
class L1Check {
 public:
  // All arguments must outlive the object.
  L1Check(const CheckedImage& image, const RecordedCounts& recorded, CheckTally& tally)
      : image_(image), geometry_(image.geometry), recorded_(recorded), tally_(tally) {}

  // Checks the entry `word` at `entry`, which is part of `piece`.  Returns the reference if it is
  // unaligned: it then is no table, but what is there may be in use.
  std::optional<TableReference> check(HostOffset entry, uint64_t word,
                                      const TableRanges::Piece& piece);

  // Returns whether so many tables were added that they should be walked before more are added.
  bool is_full();

  // Returns the tables added so far, each once, those of the active disk first, in guest order; and
  // removes them.
  std::vector<TableReference> take_tables();

 private:
  void merge();

  const CheckedImage& image_;
  const Geometry geometry_;
  const RecordedCounts& recorded_;
  CheckTally& tally_;
  std::vector<TableReference> tables_;
  size_t merged_ = 0;  // entries of tables_ after the last merge
};

}  // namespace vc::qcow2
