// Internal snapshots, as qemu-img lists them.
#pragma once

#include <string>
#include <vector>

#include "qcow2/snapshot_table.h"

namespace tool {

// The table of `qemu-img snapshot -l`, column by column; empty when there is none.
std::string snapshot_list(const std::vector<qcow2::Snapshot>& snapshots);

// An array of objects with the keys of `qemu-img info`, and "disk-size".
std::string snapshot_list_json(const std::vector<qcow2::Snapshot>& snapshots);

}  // namespace tool
