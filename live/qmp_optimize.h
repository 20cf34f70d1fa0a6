// Optimizes the disk of a guest whose QEMU was started without libvirt.
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

// As optimize_live(), for the QEMU of `options.qmp_socket`.
Result<std::vector<LiveDiskReport>> optimize_qmp(const LiveOptions& options,
                                                 appliance::Observer& observer, Progress& progress,
                                                 const Cancel& cancel);

// Completes a run that was stopped, or undoes it: `forward` and the guest runs, or not.
Result<LiveDiskReport> complete_qmp(const std::string& path, const LiveOptions& options,
                                    bool forward, appliance::Observer& observer, Progress& progress,
                                    const Cancel& cancel);

}  // namespace vc::live
