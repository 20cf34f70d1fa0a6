// The old disk that an earlier run has kept.
#pragma once

#include <ctime>
#include <optional>
#include <string>
#include <vector>

#include "libvirt/known_domains.h"
#include "tool/nightly/disk_selection.h"
#include "tool/nightly/last_results.h"

namespace vc::tool {

// Removes the old disk that `last` names, if its time is over. Does so only if the file is the one
// that this command has kept, the disk itself is there and readable, and no domain and no overlay
// of `others` use the old disk. Returns the removed path; empty: nothing was removed. `dry_run`:
// removes nothing.
Result<std::string> remove_old_backup(const NightlyDisk& disk, const LastResult* last,
                                      const std::vector<libvirt::KnownDomain>& domains,
                                      const std::vector<std::string>& others, std::time_t now,
                                      bool dry_run);

}  // namespace vc::tool
