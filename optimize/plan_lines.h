// A plan in words.
#pragma once

#include <string>

#include "appliance/observer.h"
#include "optimize/free_space_plan.h"

namespace vc::optimize {

// Tells `observer` what is done with each volume of `disk`, and whether the appliance is booted.
void tell_plan(const FreeSpacePlan& plan, const std::string& disk, appliance::Observer& observer);

}  // namespace vc::optimize
