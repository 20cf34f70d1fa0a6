// Internal snapshots, as qemu-img lists them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "qcow2/format/snapshot_table.h"

namespace tool {

// The table of `qemu-img snapshot -l`, column by column; empty when there is none.
std::string snapshot_list(const std::vector<qcow2::Snapshot>& snapshots);

// With the keys of `qemu-img info`, and "disk-size".
nlohmann::ordered_json snapshot_json(const qcow2::Snapshot& snapshot);
// An array of them.
std::string snapshot_list_json(const std::vector<qcow2::Snapshot>& snapshots);

}  // namespace tool
