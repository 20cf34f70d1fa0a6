// What the steps of a live run need.
#pragma once

#include <functional>
#include <vector>

#include "appliance/observer.h"
#include "base/cancel.h"
#include "base/progress.h"
#include "base/result.h"
#include "libvirt/live_domain.h"
#include "live/guardian.h"
#include "live/journal.h"
#include "live/options.h"
#include "live/report.h"

namespace vc::live {

struct RunContext {
  Guardian& guardian;
  const LiveOptions& options;
  appliance::Observer& observer;
  Progress& progress;
  const Cancel& cancel;
};

// The same for a domain of libvirt.
struct Context : RunContext {
  libvirt::LiveDomain& domain;
};

// Pauses the guest, calls `action`, and resumes the guest. A guest that is paused cannot write, so
// that a loss of power between QEMU's switch to another file and libvirt's change of the definition
// loses nothing. The journals say that the guest may be paused. Returns the duration of the pause.
Result<Seconds> while_paused(const Context& context, const std::vector<Journal*>& journals,
                             const std::function<Result<void>()>& action);

// Resumes the domain of `task`, which while_paused() gives to the guardian.
void resume_domain(const std::string& task);

}  // namespace vc::live
