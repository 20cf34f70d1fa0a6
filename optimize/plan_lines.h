// Describes a plan in words.
#pragma once

#include <string>

#include "appliance/observer.h"
#include "optimize/free_space_plan.h"

namespace vc::optimize {

// Tells `observer` the plan for each volume of `disk`, and whether the appliance boots. `in_place`:
// nothing is copied.
void tell_plan(const FreeSpacePlan& plan, const std::string& disk, appliance::Observer& observer,
               bool in_place = false);

}  // namespace vc::optimize
