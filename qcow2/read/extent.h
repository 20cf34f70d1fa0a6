// A range of a virtual disk and the location of its bytes.
#pragma once

#include <cstdint>

#include "storage/offset.h"

namespace vc::qcow2 {

enum class ExtentKind : uint8_t {
  kData,         // uncompressed bytes at `host`
  kCompressed,   // (part of) one compressed cluster, whose stream is at `host`
  kZero,         // an image of the chain records zeros
  kUnallocated,  // no image of the chain has an entry: reads as zeros
};

struct Extent {
  GuestOffset guest;
  uint64_t length = 0;  // bytes, at least 1
  ExtentKind kind = ExtentKind::kUnallocated;
  // The image of the chain: 0 is the top.  For kUnallocated, the lowest image that covers the
  // range: the last of the chain, or the one above a backing file that is too short.
  uint32_t depth = 0;
  // kData: the offset of the byte at `guest`. kCompressed: the offset of the stream's first byte.
  // kZero, kUnallocated: the offset of the byte at `guest` if `preallocated`.  Otherwise undefined.
  HostOffset host;
  // kCompressed: readable bytes at `host` (the stream may end before).
  uint64_t compressed_length = 0;
  // kZero, and kUnallocated for a subcluster: the range has an allocated cluster in the file.
  bool preallocated = false;

  GuestOffset end() const { return guest + length; }
  bool reads_as_zero() const {
    return kind == ExtentKind::kZero || kind == ExtentKind::kUnallocated;
  }
};

// Extends `extent` by the adjacent `next`, if both have the same kind and depth and, where they
// have host offsets, these are contiguous.  Compressed clusters never join.
inline bool join(Extent& extent, const Extent& next) {
  if (extent.kind != next.kind || extent.depth != next.depth ||
      extent.preallocated != next.preallocated || extent.kind == ExtentKind::kCompressed)
    return false;
  const bool has_host = extent.kind == ExtentKind::kData || extent.preallocated;
  if (has_host && next.host != extent.host + extent.length) return false;
  extent.length += next.length;
  return true;
}

}  // namespace vc::qcow2
