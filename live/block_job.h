// Waits for a block job of QEMU.
#pragma once

#include <string>

#include "base/result.h"
#include "live/context.h"
#include "live/folder.h"

namespace vc::live {

// What ends a wait early.
enum class Patience {
  kUntilCancelled,  // the user stops the run, or the free space is below the reserve
  kUntilFull,       // the free space is below the reserve
  kUntilReady,      // nothing: the run is being undone
};

// Waits until the destination of the job of disk `target` has the content of the disk. Returns an
// error if the job ends before, or for the reasons of `patience`. Does not end the job.
Result<void> wait_until_ready(const Context& context, const LiveFolder& folder,
                              const std::string& target, Patience patience);

// Ends the job of disk `target`, if there is one, and waits for its end.
Result<void> end_job(const Context& context, const std::string& target);

// Returns an error if the storage has less free space than the run needs to remain harmless.
Result<void> check_reserve(const RunContext& context, const LiveFolder& folder);

}  // namespace vc::live
