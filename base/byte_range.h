// A range of bytes.
#pragma once

#include <cstdint>

namespace vc {

struct ByteRange {
  uint64_t begin;  // bytes
  uint64_t end;    // bytes, exclusive

  uint64_t length() const { return end - begin; }
  bool empty() const { return begin >= end; }
  bool overlaps(const ByteRange& other) const { return begin < other.end && other.begin < end; }
  friend bool operator==(const ByteRange&, const ByteRange&) = default;
};

}  // namespace vc
