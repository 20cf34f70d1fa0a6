// Which internal snapshots a copy carries.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "qcow2/format/format_probe.h"
#include "qcow2/format/snapshot_table.h"
#include "qcow2/read/trust.h"

namespace vc::copy {

struct SnapshotChoice {
  // Names or IDs of snapshots that are left out.
  std::vector<std::string> dropped;
  // The image that has the snapshots, a backing file of the source; empty: the source. With the
  // options to open it.
  std::string image;
  std::optional<qcow2::Format> format;
  qcow2::Trust trust;
};

// Returns the snapshots that are not dropped, in order. A word drops the snapshots of that name,
// else the one with that ID; an error if there is none. `where`: the image, for messages.
Result<std::vector<qcow2::Snapshot>> kept_snapshots(const std::vector<qcow2::Snapshot>& all,
                                                    const std::vector<std::string>& dropped,
                                                    const std::string& where);

}  // namespace vc::copy
