// The overlay of a disk, in which the guest is trimmed.
#pragma once

#include <optional>
#include <string>

#include "appliance/observer.h"
#include "base/cancel.h"
#include "base/result.h"
#include "optimize/options.h"
#include "optimize/own_files.h"
#include "optimize/report.h"
#include "optimize/source_disk.h"
#include "optimize/step_log.h"
#include "storage/descriptor.h"

namespace vc::optimize {

// The destructor removes the overlay.
class TrimOverlay {
 public:
  // All arguments must outlive the object; `disk` must be open.
  TrimOverlay(const OptimizeOptions& options, const SourceDisk& disk, OptimizeReport& report,
              StepLog& steps, appliance::Observer& observer);

  // Removes the overlay that a killed run left. Returns an error if another file has its name.
  Result<void> clear();
  // Creates the overlay.
  Result<void> make();
  bool is_made() const { return own_.has_value(); }
  // Returns a name that always leads to this file, even if another process changes its folder.
  std::string name() const;
  // Trims the guest in the overlay.
  Result<void> trim(const Cancel& cancel);
  // Removes the overlay.
  void remove() { own_.reset(); }

 private:
  const OptimizeOptions& options_;
  const SourceDisk& disk_;
  OptimizeReport& report_;
  StepLog& steps_;
  appliance::Observer& observer_;
  const std::string path_;
  Descriptor file_;
  std::optional<TemporaryFile> own_;
};

}  // namespace vc::optimize
