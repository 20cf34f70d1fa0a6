// Reasons to skip a disk that cost almost nothing to find.
#pragma once

#include <ctime>
#include <optional>
#include <string>
#include <vector>

#include "libvirt/known_domains.h"
#include "storage/directory.h"
#include "tool/nightly/disk_selection.h"
#include "tool/nightly/last_results.h"
#include "tool/nightly/nightly_report.h"

namespace vc::tool {

struct Skip {
  NightlyEntry::Why why = NightlyEntry::Why::kNone;
  std::string text;
};
// nullopt: nothing speaks against the disk.
using MaybeSkip = std::optional<Skip>;

// The end of a day is late by half a day: a timer does not start at the same second every night.
inline constexpr int64_t kHalfADay = 43200;

// Checks the state of the domain. Sets `runs` if its guest runs, and the policy wants that.
Result<MaybeSkip> check_guest(const NightlyDisk& disk, bool& runs);

// Checks the time of the last success.
MaybeSkip check_due(const NightlySettings& settings, const LastResult* last, std::time_t now);

// Checks whether the file is as the last success has left it, under the same settings.
MaybeSkip check_changed(const NightlySettings& settings, const LastResult* last,
                        const struct stat& status);

// Checks what the header of the image tells. Does not lock the image.
Result<MaybeSkip> check_header(const NightlyDisk& disk);

// Checks whether a domain of `domains` that is not shut off uses the file, or a libvirt of this
// machine knows one. `own`: the domain whose disk it is, if its guest runs and may; else nullptr.
Result<MaybeSkip> check_users(const std::string& path,
                              const std::vector<libvirt::KnownDomain>& domains,
                              const libvirt::KnownDomain* own);

// Returns the path of the old disk that optimize would keep.
Result<std::string> backup_of(const std::string& path);

}  // namespace vc::tool
