// The threads that send the requests of a load.
#pragma once

#include <functional>
#include <span>

#include "base/result.h"
#include "base/stop.h"
#include "bench/schedule.h"
#include "bench/tally.h"

namespace vc::bench {

// Calls `work` with the number and the tally of each thread, and adds these tallies to `tally`.
// Starts the schedule when all threads run, and returns when they have ended. Passes an error of
// `work`, and a failure to create a thread, to `stop`, and ends the schedule.
void run_threads(size_t count, Schedule& schedule, Stop& stop, Tally& tally,
                 const std::function<Result<void>(size_t number, Tally& own)>& work);

}  // namespace vc::bench
