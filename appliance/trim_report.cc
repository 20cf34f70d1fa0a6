#include "appliance/trim_report.h"

#include <algorithm>

namespace vc::appliance {

std::string TrimReport::why_nothing() const {
  using Outcome = TrimmedSpace::Outcome;
  if (blank) return {};
  if (std::any_of(spaces.begin(), spaces.end(), [](const TrimmedSpace& it) {
        return it.excluded || (it.outcome != Outcome::kLeftAlone && it.outcome != Outcome::kFailed);
      }))
    return {};
  for (const TrimmedDisk& it : disks)
    if (it.table.kind == PartitionTable::Kind::kDamagedGpt) return it.table.problem;
  const auto failed = std::find_if(spaces.begin(), spaces.end(), [](const TrimmedSpace& it) {
    return it.outcome == Outcome::kFailed;
  });
  if (failed != spaces.end())
    return from_metadata ? failed->device + ": " + failed->why : "trimming has failed";
  // Prefers advice to a reason without advice.
  for (const TrimmedSpace& it : spaces)
    if (it.advice) return it.device + ": " + it.why;
  for (const TrimmedSpace& it : spaces)
    if (it.why.starts_with("encrypted")) return it.device + ": " + it.why;
  if (from_metadata)
    return "no filesystem with trustworthy metadata was found: without --metadata, the appliance "
           "may find more";
  return "the appliance found no known filesystem: if the disk has another sector size, use "
         "--sector-size";
}

}  // namespace vc::appliance
