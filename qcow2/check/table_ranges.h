// Tables that may lie on top of each other, cut into pieces that do not.
#pragma once

#include <cstdint>
#include <vector>

#include "storage/offset.h"

namespace qcow2 {

// So that no table is more work than the file is long, however often it is named.
class TableRanges {
 public:
  // `owner` is a number of the caller's.
  void add(HostOffset at, uint64_t length, uint32_t owner) {
    if (length > 0) ranges_.push_back({at.value(), at.value() + length, owner});
  }

  struct Piece {
    HostOffset at;
    uint64_t length;      // bytes
    uint64_t times;       // tables that this is a part of, without the active one
    bool active;          // a part of the one whose owner is `active`, as given to pieces ()
    uint32_t owner;       // one of them, `active` rather than another
    HostOffset owner_at;  // where that one begins
  };
  // In the order of the file.
  std::vector<Piece> pieces(uint32_t active) const;

 private:
  struct Range {
    uint64_t begin;
    uint64_t end;
    uint32_t owner;
  };
  std::vector<Range> ranges_;
};

}  // namespace qcow2
