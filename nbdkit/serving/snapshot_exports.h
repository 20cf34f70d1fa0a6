// Internal snapshots as exports: what the plugin and the qcow2 filter call them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "qcow2/format/snapshot_table.h"

namespace plugin {

// What the name of a snapshot's export begins with; the snapshot's id or name follows.
inline constexpr std::string_view kSnapshotPrefix = "snapshot:";

struct Export {
  std::string name;
  std::string description;
};

// One line for people: of the disk as it is now, and as it was at a snapshot.
std::string describe_disk(uint64_t size);
std::string describe(const qcow2::Snapshot& snapshot);

// One export for each snapshot, within NBD's limits on names and nbdkit's on their number, which
// leaves room for one more.  Each name leads find_snapshot () to what its description tells, and
// none stands twice.
std::vector<Export> list_snapshot_exports(const std::vector<qcow2::Snapshot>& snapshots);

}  // namespace plugin
