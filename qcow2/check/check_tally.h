// The sums of a check, and the findings that it passes to its observer.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "qcow2/check/checked_image.h"
#include "qcow2/check/finding.h"
#include "qcow2/check/fragmentation.h"
#include "qcow2/check/lost_references.h"
#include "qcow2/check/recorded_counts.h"

namespace vc::qcow2 {

struct CheckSums {
  uint64_t corruptions = 0;
  uint64_t leaks = 0;
  uint64_t check_errors = 0;
  // Clusters of the current disk.
  uint64_t total_clusters = 0;
  uint64_t allocated_clusters = 0;
  uint64_t fragmented_clusters = 0;
  uint64_t compressed_clusters = 0;
  uint64_t image_end_offset = 0;  // end of the last cluster that is counted or referenced; bytes
  // Single refcounts cannot be repaired: all must be rebuilt.
  bool needs_rebuild = false;
  // The reason for that is a table or a block that cannot be used as one.
  bool refcounts_unusable = false;
  // A structure with references is unreadable, or differs from what was once written there.
  // Clusters that seem unreferenced may be in use, so no refcount may be lowered.
  bool references_unknown = false;
  // The reason for that is a table of zeros, with leaks that look like its references.
  bool references_lost = false;
  // The reason for that is other damage, or such a table and other damage.
  bool references_damaged = false;
  // The reason for that is a read error of the storage, which may be temporary.
  bool unreadable = false;
  // The end of the last referenced cluster past the end of the file, as far as it is close enough
  // that the file may have reached it; 0: none.
  uint64_t end_of_outside = 0;
  // Compressed clusters that a deep check decoded, and those that it failed to decode.
  uint64_t decoded_clusters = 0;
  uint64_t undecodable_clusters = 0;
  Fragmentation::Figures order;  // seeks of a guest that reads the whole disk
  uint64_t passes = 1;  // number of passes over all tables, to stay within the memory limit
};

// Must be used from one thread at a time.
class CheckObserver {
 public:
  virtual ~CheckObserver() = default;
  // Receives a finding.  The order is the same in each run.  A malicious image can cause millions
  // of findings.
  virtual void found(const Finding& finding) = 0;
  // Reports progress: `done` of `total` bytes of metadata (and of compressed data, in a deep
  // check).
  virtual void progress(uint64_t /*done*/, uint64_t /*total*/) {}
  // Returns whether to end the check with a cancelled error.  Called often, from any thread.
  virtual bool cancelled() { return false; }
};

// Adds up the findings of one traversal.  Not thread-safe.
class CheckTally {
 public:
  // All arguments must outlive the object.
  CheckTally(const CheckedImage& image, CheckObserver& observer);

  // Reports a finding.  Findings that each pass repeats are reported in the first pass only, unless
  // `any_pass`.
  void report(Finding it, bool any_pass = false);
  // Reports that the storage returned an error for a structure.
  void report_unreadable(Finding::Place place, HostOffset at);
  // Records that a part of the recorded refcounts cannot be used: all must be rebuilt.
  void refcounts_unusable();
  // Records that structures with references could not be read completely: leaks may be in use.
  void references_incomplete() { incomplete_ = true; }
  // Reports the tables that seem to have lost their references.
  void report_lost();

  // Must be called before findings about overlaps are reported.
  void use(const RecordedCounts& recorded) { recorded_ = &recorded; }
  // Start a pass, and all passes after the first one.
  void begin_pass() { unreadable_ = 0; }
  void end_first_pass() { first_pass_ = false; }
  bool first_pass() const { return first_pass_; }
  // Returns the structures that were unreadable in this pass.
  uint64_t unreadable() const { return unreadable_; }

  // Report progress in the first pass: that `bytes` more are to be read, or are read.
  void expect(uint64_t bytes) { total_ = done_ + bytes; }
  void progress(uint64_t bytes);
  // Returns a cancelled error if the observer cancels.
  Result<void> go_on();

  CheckSums& sums() { return sums_; }
  LostReferences& lost() { return lost_; }

 private:
  void remember_outside(const Finding& it);

  const CheckedImage& image_;
  CheckObserver& observer_;
  const RecordedCounts* recorded_ = nullptr;
  CheckSums sums_;
  LostReferences lost_;
  bool incomplete_ = false;  // some references are unknown
  bool first_pass_ = true;
  uint64_t unreadable_ = 0;        // structures in this pass
  uint64_t done_ = 0, total_ = 0;  // bytes
};

}  // namespace vc::qcow2
