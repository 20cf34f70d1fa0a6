// The steps of a copy: opens source and destination, runs the transfer, verifies.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "base/cancel.h"
#include "base/progress.h"
#include "base/stop.h"
#include "copy/carried_bitmaps.h"
#include "copy/copy_options.h"
#include "copy/copy_plan.h"
#include "copy/copy_source.h"
#include "copy/copy_summary.h"
#include "copy/snapshot_copy.h"
#include "copy/transfer.h"

namespace vc::copy {

// One copy, from its options to its summary.
class CopyJob {
 public:
  // All arguments must outlive the job.
  CopyJob(const CopyOptions& options, Progress& progress, const Cancel& cancel)
      : options_(options), progress_(progress), cancel_(cancel), stop_(cancel) {}

  Result<CopySummary> run();
  Result<void> check();

 private:
  using Kind = DestinationType::Kind;

  Result<void> prepare();
  Result<void> check_late_source() const;
  Result<void> plan_bitmaps();
  Result<void> check_device();
  Result<CopySummary> predict();
  Result<void> copy();
  Result<void> verify_copy(const std::string& path);
  Result<void> verify_snapshots(Source& copy, VerifySummary& summary);
  uint64_t total() const;
  Result<std::unique_ptr<Source>> open_copy(const std::string& path);
  void sum_up(std::chrono::steady_clock::time_point start);

  Source& source() const { return source_->get(); }

  const CopyOptions& options_;
  Progress& progress_;
  const Cancel& cancel_;
  Stop stop_;

  std::optional<CopySource> source_;
  std::unique_ptr<CarriedBitmaps> bitmaps_;  // nullptr: none
  CopyPlan plan_;
  std::unique_ptr<SnapshotCopy> snapshots_;  // nullptr: none
  std::optional<Transfer> transfer_;
  std::optional<Digests> digests_;
  CopySummary summary_;
};

}  // namespace vc::copy
