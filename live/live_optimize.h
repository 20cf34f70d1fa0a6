// Optimizes the disks of running guests.
#pragma once

#include <string>
#include <vector>

#include "appliance/observer.h"
#include "base/cancel.h"
#include "base/progress.h"
#include "base/result.h"
#include "live/options.h"
#include "live/report.h"

namespace vc::live {

// Runs the whole procedure of live_disk.h for all disks of `options`, one after the other. The
// report has each disk, also one whose run was undone. Returns an error if nothing was changed.
//
// A cancellation undoes the run of a disk, unless its fresh image is complete: then it finishes.
//
// Call this before the process has threads or connections to libvirt.
Result<std::vector<LiveDiskReport>> optimize_live(const LiveOptions& options,
                                                  appliance::Observer& observer, Progress& progress,
                                                  const Cancel& cancel);

// Completes a run that was stopped, for the disk at `path`: brings its guest to the fresh image if
// it runs, else to the disk as it was before the run.
Result<LiveDiskReport> resume_live(const std::string& path, const LiveOptions& options,
                                   appliance::Observer& observer, Progress& progress,
                                   const Cancel& cancel);

// Brings the guest of the disk at `path` back to the disk as it was before the run that was
// stopped. Completes a run whose guest is on the fresh image already.
Result<LiveDiskReport> undo_live(const std::string& path, const LiveOptions& options,
                                 appliance::Observer& observer, Progress& progress,
                                 const Cancel& cancel);

// Returns true if a run for the disk at `path` is under way, or was stopped.
bool has_journal(const std::string& path);

}  // namespace vc::live
