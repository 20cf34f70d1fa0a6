// Scans the snapshot table of an image, damaged or not.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "qcow2/check/finding.h"
#include "qcow2/format/header.h"
#include "storage/storage.h"

namespace vc::qcow2 {

struct SnapshotScan {
  struct Row {
    HostOffset l1_table;
    uint64_t l1_entries = 0;
    bool walkable = false;  // the fields above are plausible
  };
  std::vector<Row> rows;
  uint64_t bytes = 0;     // length of the table
  bool complete = false;  // false: the table may refer to more clusters
  // False: a row names no usable table, or may not be a row.
  bool all_walkable = true;

  // Reads the table.  Reports damage to `found`.
  static Result<SnapshotScan> read(const Storage& storage, const Header& header,
                                   const std::function<void(const Finding&)>& found);
};

}  // namespace vc::qcow2
