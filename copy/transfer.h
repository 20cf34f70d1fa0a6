// Moves the data of a copy from its source through the pipeline, for real or in a dry run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/cancel.h"
#include "base/progress.h"
#include "base/rate_limit.h"
#include "base/stop.h"
#include "copy/copy_options.h"
#include "copy/copy_plan.h"
#include "copy/copy_source.h"
#include "copy/part_progress.h"
#include "copy/pipeline/pipeline.h"
#include "copy/pipeline/sink.h"
#include "copy/snapshot_copy.h"

namespace vc::copy {

// Returns the folder for temporary files: CopyOptions::spool, or the default one.
std::string spool_folder(const CopyOptions& options);

class Transfer {
 public:
  // Clusters of the destination by how they were stored; see CopySummary.
  struct Counts {
    uint64_t data = 0;
    uint64_t compressed = 0;
    uint64_t passed_through = 0;
    uint64_t found_zero = 0;
  };

  // All arguments must outlive the transfer.
  Transfer(const CopyOptions& options, CopySource& source, Progress& progress, const Cancel& cancel,
           Stop& stop)
      : options_(options),
        source_(source),
        parts_(progress),
        cancel_(cancel),
        stop_(stop),
        limit_(options.rate_limit) {}

  // Makes run() and dry_run() copy the snapshots, too. `snapshots` must outlive the transfer.
  void carry(SnapshotCopy& snapshots) { snapshots_ = &snapshots; }

  // Returns the options of a pipeline from the source, with the rate limit of the copy.
  Pipeline::Options pipeline_options(const CopyPlan& plan);

  // Moves all data of the source, then of the late source, into `sink`. With snapshots, `image` is
  // the image that gets them: `sink`, or the sink to which it passes chunks on.
  Result<void> run(Sink& sink, const CopyPlan& plan, Qcow2Sink* image = nullptr);
  // Returns the progress of all states, for a verification.
  PartProgress& parts() { return parts_; }
  // Counts of the last run() or dry_run().
  const Counts& counts() const { return counts_; }

  // Moves all data into an image that is not stored. Returns the length of the image, bytes.
  Result<uint64_t> dry_run(const CopyPlan& plan);

  // Builds the image without storing it, to learn its first cluster.
  Result<std::vector<std::byte>> first_cluster(const CopyPlan& plan);

 private:
  Result<void> run_disk(Sink& sink, const CopyPlan& plan);
  Result<void> run_part(Sink& sink, const Pipeline::Options& how);
  Result<uint64_t> dry_run_with_snapshots(const CopyPlan& plan);
  Result<void> go_on_with_late_source(const CopyPlan& plan);

  const CopyOptions& options_;
  CopySource& source_;
  PartProgress parts_;
  SnapshotCopy* snapshots_ = nullptr;  // nullptr: none
  const Cancel& cancel_;
  Stop& stop_;
  RateLimit limit_;  // thread-safe
  Counts counts_;
};

}  // namespace vc::copy
