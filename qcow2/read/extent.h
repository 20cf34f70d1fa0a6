// A stretch of a virtual disk and where its bytes are.
#pragma once

#include <cstdint>

#include "storage/offset.h"

namespace qcow2 {

enum class ExtentKind : uint8_t {
  kData,         // plain bytes at `host`
  kCompressed,   // (part of) one compressed cluster, its stream at `host`
  kZero,         // reads as zeros, says some image of the chain
  kUnallocated,  // no image of the chain says anything: reads as zeros
};

struct Extent {
  GuestOffset guest;
  uint64_t length = 0;  // bytes, at least 1
  ExtentKind kind = ExtentKind::kUnallocated;
  // Which image of the chain: 0 is the top.  For kUnallocated, the one behind which nothing is: the
  // last of the chain, or the one above a backing file that is too short.
  uint32_t depth = 0;
  // kData: of the byte at `guest`.  kCompressed: of the first byte of the cluster's stream.
  // kZero, kUnallocated: of the byte at `guest` if `preallocated`.  Else meaningless.
  HostOffset host;
  // kCompressed: bytes that may be read at `host` (the stream ends somewhere before).
  uint64_t compressed_length = 0;
  // kZero, and kUnallocated of a subcluster, with a place reserved in the file.
  bool preallocated = false;

  GuestOffset end() const { return guest + length; }
  bool reads_as_zero() const {
    return kind == ExtentKind::kZero || kind == ExtentKind::kUnallocated;
  }
};

// Makes `extent` longer by `next`, which begins where it ends, if both tell one story: the same
// kind and depth and, where there is a host offset, without a gap there.  Compressed clusters never
// join.
inline bool join(Extent& extent, const Extent& next) {
  if (extent.kind != next.kind || extent.depth != next.depth ||
      extent.preallocated != next.preallocated || extent.kind == ExtentKind::kCompressed)
    return false;
  const bool has_host = extent.kind == ExtentKind::kData || extent.preallocated;
  if (has_host && next.host != extent.host + extent.length) return false;
  extent.length += next.length;
  return true;
}

}  // namespace qcow2
