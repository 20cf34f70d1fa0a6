// Splits tables that may overlap into disjoint pieces.
#pragma once

#include <cstdint>
#include <vector>

#include "storage/offset.h"

namespace vc::qcow2 {

// Bounds the work by the length of the file, however often a table is referenced.
class TableRanges {
 public:
  // `owner` is a number chosen by the caller.
  void add(HostOffset at, uint64_t length, uint32_t owner) {
    if (length > 0) ranges_.push_back({at.value(), at.value() + length, owner});
  }

  struct Piece {
    HostOffset at;
    uint64_t length;      // bytes
    uint64_t times;       // tables that contain this piece, except the active one
    bool active;          // the table of owner `active`, as passed to pieces (), contains it
    uint32_t owner;       // one of the owners, preferably `active`
    HostOffset owner_at;  // offset of that owner's table
  };
  // Returns the pieces in file order.
  std::vector<Piece> pieces(uint32_t active) const;

 private:
  struct Range {
    uint64_t begin;
    uint64_t end;
    uint32_t owner;
  };
  std::vector<Range> ranges_;
};

}  // namespace vc::qcow2
