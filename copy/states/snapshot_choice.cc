#include "copy/states/snapshot_choice.h"

#include <fmt/format.h>

#include <algorithm>

namespace vc::copy {

using qcow2::Snapshot;

Result<std::vector<Snapshot>> kept_snapshots(const std::vector<Snapshot>& all,
                                             const std::vector<std::string>& dropped,
                                             const std::string& where) {
  std::vector<Snapshot> kept = all;
  for (const std::string& word : dropped) {
    const bool is_name = qcow2::find_snapshot_by_name(all, word) != nullptr;
    if (!is_name && !qcow2::find_snapshot(all, word))
      return fail(Error::invalid(fmt::format("{}: there is no snapshot '{}'", where, word)));
    std::erase_if(kept, [&](const Snapshot& it) { return (is_name ? it.name : it.id) == word; });
  }
  return kept;
}

}  // namespace vc::copy
