// Internal snapshots as exports: the names that the plugin and the qcow2 filter use.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "qcow2/format/snapshot_table.h"

namespace vc::nbdkit {

// Prefix of a snapshot's export name; the snapshot's ID or name follows.
inline constexpr std::string_view kSnapshotPrefix = "snapshot:";

struct Export {
  std::string name;
  std::string description;
};

// Returns a one-line description: of the current disk, or of a snapshot's.
std::string describe_disk(uint64_t size);
std::string describe(const qcow2::Snapshot& snapshot);

// Returns one export per snapshot. Respects NBD's limits on names and nbdkit's limit on the number
// of exports, less one for the disk. With each name, find_snapshot() finds the snapshot that the
// description describes. Names are unique.
std::vector<Export> list_snapshot_exports(const std::vector<qcow2::Snapshot>& snapshots);

}  // namespace vc::nbdkit
