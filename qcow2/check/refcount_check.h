// Compares the refcounts of an image with its references.
#pragma once

#include <cstdint>
#include <optional>

#include "base/result.h"
#include "qcow2/check/check_tally.h"
#include "qcow2/check/checked_image.h"
#include "qcow2/check/recorded_counts.h"
#include "qcow2/check/reference_counts.h"

namespace vc::qcow2 {

// Used for one traversal.  Not thread-safe.
class RefcountCheck {
 public:
  // All arguments must outlive the object.
  RefcountCheck(const CheckedImage& image, const RecordedCounts& recorded, CheckTally& tally)
      : image_(image), geometry_(image.geometry), recorded_(recorded), tally_(tally) {}

  // Checks the entries of the refcount table, and adds the references to its blocks.  All other
  // references must have been added to `counts`.
  void refer_blocks(ReferenceCounts& counts);

  // Reports each cluster in the range of `counts` whose recorded refcount differs from its
  // references.
  Result<void> compare(const ReferenceCounts& counts);

  // Returns the last compared cluster that has a refcount or a reference. 0 if none has.
  uint64_t highest() const { return highest_; }

 private:
  void refer_block(uint64_t index, ReferenceCounts& counts);
  void compare_cluster(uint64_t cluster, bool known, uint64_t recorded, uint64_t references);
  void add_to_run(Finding::Kind kind, Finding::Severity severity, uint64_t cluster, uint64_t found,
                  uint64_t expected);
  void end_run();

  const CheckedImage& image_;
  const Geometry geometry_;
  const RecordedCounts& recorded_;
  CheckTally& tally_;
  std::optional<Finding> run_;  // of consecutive clusters with the same damage
  uint64_t highest_ = 0;
};

}  // namespace vc::qcow2
