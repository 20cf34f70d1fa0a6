// Lists of internal snapshots, in qemu-img's form.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "qcow2/format/snapshot_table.h"

namespace vc::tool {

// Returns the table of `qemu-img snapshot -l`. Empty if there are no snapshots.
std::string snapshot_list(const std::vector<qcow2::Snapshot>& snapshots);

// Returns an object with the keys of `qemu-img info`, and "disk-size".
nlohmann::ordered_json snapshot_json(const qcow2::Snapshot& snapshot);
// Returns an array of these objects.
std::string snapshot_list_json(const std::vector<qcow2::Snapshot>& snapshots);

}  // namespace vc::tool
