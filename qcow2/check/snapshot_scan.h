// The snapshot table of an image, however it looks.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "qcow2/check/finding.h"
#include "qcow2/format/header.h"
#include "storage/storage.h"

namespace qcow2 {

struct SnapshotScan {
  struct Row {
    HostOffset l1_table;
    uint64_t l1_entries = 0;
    bool walkable = false;  // the fields above can be what they say
  };
  std::vector<Row> rows;
  uint64_t bytes = 0;     // of the table
  bool complete = false;  // false: nobody knows what else it refers to
  // False: one of the rows names no table, or may not be a row.
  bool all_walkable = true;

  // Reads the table, and tells `found` what is wrong with it.
  static Result<SnapshotScan> read(const Storage& storage, const Header& header,
                                   const std::function<void(const Finding&)>& found);
};

}  // namespace qcow2
