// Walks L2 tables: checks each of them, and adds the references of its entries.
#pragma once

#include <cstdint>
#include <span>

#include "base/result.h"
#include "qcow2/check/check_tally.h"
#include "qcow2/check/checked_image.h"
#include "qcow2/check/deep_check.h"
#include "qcow2/check/fragmentation.h"
#include "qcow2/check/l2_check.h"
#include "qcow2/check/metadata_map.h"
#include "qcow2/check/recorded_counts.h"
#include "qcow2/check/reference_counts.h"

namespace vc::qcow2 {

// Used for one traversal.  Reads on several threads; must be used by one.
class TableWalk {
 public:
  // All arguments must outlive the object.
  TableWalk(const CheckedImage& image, const RecordedCounts& recorded, DeepCheck& deep,
            CheckTally& tally)
      : image_(image),
        geometry_(image.geometry),
        recorded_(recorded),
        deep_(deep),
        tally_(tally),
        order_(image.geometry) {}

  // Adds the references of the tables to `counts`; `metadata` has the clusters that guest data must
  // not use.  Each table must be listed once, those of the active disk first, in guest order.
  Result<void> walk(std::span<const TableReference> tables, const MetadataMap& metadata,
                    ReferenceCounts& counts);

  // Returns how far the tables of the active disk, walked in the first pass, are out of order.
  const Fragmentation::Figures& order() const { return order_.figures(); }

 private:
  class Chunk;

  const CheckedImage& image_;
  const Geometry geometry_;
  const RecordedCounts& recorded_;
  DeepCheck& deep_;
  CheckTally& tally_;
  Fragmentation order_;
  unsigned decoded_ends_ = 0;
};

}  // namespace vc::qcow2
