// The disk that a run is about: opened, locked, and checked for all that rules a run out.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "appliance/observer.h"
#include "base/cancel.h"
#include "base/result.h"
#include "copy/copier.h"
#include "optimize/disk_swap.h"
#include "optimize/options.h"
#include "optimize/report.h"
#include "optimize/step_log.h"
#include "optimize/unchanged.h"
#include "qcow2/read/chain.h"
#include "qcow2/read/image.h"

namespace vc::optimize {

// Keeps the locks of the disk and of its backing files.
class SourceDisk {
 public:
  // All arguments must outlive the object.
  SourceDisk(const OptimizeOptions& options, OptimizeReport& report, StepLog& steps,
             appliance::Observer& observer, const Cancel& cancel)
      : options_(options), report_(report), steps_(steps), observer_(observer), cancel_(cancel) {}

  // Opens the disk, and sets the figures of the report that tell what it is.  Repairs it before, if
  // the options ask for that.  Returns an error for what cannot be optimized, and for options that
  // contradict each other, before anything takes time.  May be called once; the functions below
  // need it.
  Result<void> open();

  // Returns the path without symbolic links.
  const std::string& path() const { return disk_; }
  const qcow2::Chain& chain() const { return *chain_; }
  // Returns an error if one of the files was changed or replaced since open ().
  Result<void> check_unchanged() const { return unchanged_->check(); }
  // The swap that puts the result in the place of the disk; nullopt with an output.
  std::optional<DiskSwap>& swap() { return swap_; }
  // Passes the remarks of the swap that are new to the observer.
  void tell_remarks();

  // Returns an error if the disk is the backing file of another, which a trim would change.
  Result<void> check_overlays() const;
  // Returns the path of the result while it is written.
  std::string destination_name() const;
  // Returns whether the result is the same disk, but for its size and order.
  bool is_same_disk() const;
  // Returns how `source`, the disk or an overlay of it, is copied to `destination`.
  copy::CopyOptions copy_options(const std::string& source, const std::string& destination) const;

 private:
  Result<void> plan_swap();
  Result<void> check_output() const;
  Result<void> check_links();
  Result<void> check_readers() const;
  Result<void> check_libvirt() const;
  Result<void> check_snapshots(const qcow2::Image& image) const;
  Result<void> warn_of_losses(const qcow2::Image& image) const;

  const OptimizeOptions& options_;
  OptimizeReport& report_;
  StepLog& steps_;
  appliance::Observer& observer_;
  const Cancel& cancel_;
  std::string disk_;                    // without symbolic links
  std::optional<qcow2::Chain> chain_;   // keeps its locks
  std::optional<Unchanged> unchanged_;  // the files of chain_
  std::optional<DiskSwap> swap_;
  size_t told_ = 0;  // remarks of swap_
};

}  // namespace vc::optimize
