// Optimizes one disk of a night.
#pragma once

#include <string>
#include <vector>

#include "base/cancel.h"
#include "tool/nightly/disk_selection.h"
#include "tool/nightly/nightly_report.h"
#include "tool/terminal/console.h"

namespace vc::tool {

struct DiskRunOptions {
  bool dry_run = false;
  bool json = false;                       // standard output is reserved for the report
  const std::vector<std::string>& others;  // images that may have the disk as backing file
};

// Optimizes the disk, and sets the outcome and the figures of `entry`. `runs`: its guest runs.
void optimize_disk(const NightlyDisk& disk, bool runs, const DiskRunOptions& options,
                   const Console& console, const Cancel& cancel, NightlyEntry& entry);

}  // namespace vc::tool
