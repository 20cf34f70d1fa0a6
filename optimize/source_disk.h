// The disk of a run: opened, locked, and checked for conditions that forbid a run.
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

// Holds the locks of the disk and of its backing files.
class SourceDisk {
 public:
  // All arguments must outlive the object.
  SourceDisk(const OptimizeOptions& options, OptimizeReport& report, StepLog& steps,
             appliance::Observer& observer, const Cancel& cancel)
      : options_(options), report_(report), steps_(steps), observer_(observer), cancel_(cancel) {}

  // Opens the disk, and sets its figures in the report. Before that, repairs it if requested.
  // Returns an error, before anything takes time, if the disk cannot be optimized or if options
  // conflict. May be called once; the functions below need it.
  Result<void> open();

  // Returns the path without symbolic links.
  const std::string& path() const { return disk_; }
  // Returns the encryption of the image; nullptr: none.
  std::shared_ptr<const qcow2::Encryption> encryption() const {
    return chain_ ? chain_->encryptions().front() : nullptr;
  }
  const qcow2::Chain& chain() const { return *chain_; }
  // Returns an error if one of the files was changed or replaced since open().
  Result<void> check_unchanged() const { return unchanged_->check(); }
  // The swap that puts the result in the place of the disk. nullopt with an output.
  std::optional<DiskSwap>& swap() { return swap_; }
  // Passes new remarks of the swap to the observer.
  void tell_remarks();

  // Returns an error if another image has the disk as backing file: a trim would change that image.
  Result<void> check_overlays() const;
  // Returns the path of the result while it is written.
  std::string destination_name() const;
  // Returns true if the result differs from the disk only in size and order.
  bool is_same_disk() const;
  // Returns the options to copy `source`, the disk or an overlay of it, to `destination`.
  copy::CopyOptions copy_options(const std::string& source, const std::string& destination) const;

 private:
  Result<void> plan_swap();
  Result<void> check_output() const;
  Result<void> check_links();
  Result<void> check_readers() const;
  Result<void> check_libvirt() const;
  Result<void> check_snapshots(const qcow2::Image& image);
  // Returns the choice for a copy of `source`, the disk or an overlay of it.
  std::optional<copy::SnapshotChoice> carried_snapshots(const std::string& source) const;
  Result<void> warn_of_losses(const qcow2::Image& image) const;
  Result<void> warn_of_bitmaps(const qcow2::Image& image) const;

  const OptimizeOptions& options_;
  OptimizeReport& report_;
  StepLog& steps_;
  appliance::Observer& observer_;
  const Cancel& cancel_;
  std::string disk_;                    // without symbolic links
  std::optional<qcow2::Chain> chain_;   // holds the locks
  std::optional<Unchanged> unchanged_;  // state of the files of chain_
  std::optional<DiskSwap> swap_;
  size_t kept_snapshots_ = 0;  // that the result has
  size_t told_ = 0;            // number of swap_'s remarks that the observer knows
};

}  // namespace vc::optimize
