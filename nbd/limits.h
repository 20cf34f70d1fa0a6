// What a server can do, and what it wants requests to be like.
#pragma once

#include <libnbd.h>

#include <cstdint>
#include <string>

#include "base/result.h"

namespace copy {

// Flags of base:allocation and of QEMU's dirty bitmaps.  A hole without kStatusZero may hold
// anything.
constexpr uint32_t kStatusHole = 1;
constexpr uint32_t kStatusZero = 2;
constexpr uint32_t kStatusDirty = 1;

std::string dirty_bitmap_context(const std::string& bitmap);

struct NbdLimits {
  uint64_t size = 0;          // of the disk, bytes
  uint64_t minimum = 1;       // requests begin and end at multiples of it, bytes; a power of two
  uint64_t preferred = 4096;  // bytes, a power of two, at least `minimum`
  uint64_t maximum = 0;       // of a request that carries data, bytes
  bool read_only = false;
  // Without it a server may take one client only, and let the second wait for ever; and a flush on
  // one connection says nothing of the others.
  bool multi_conn = false;
  bool can_flush = false;
  bool can_trim = false;
  bool can_zero = false;
  bool can_fast_zero = false;
  bool can_fua = false;

  // Of a handle that has just been connected to `name`.  An error when the server's word makes no
  // sense.
  static qcow2::Result<NbdLimits> of(nbd_handle* handle, const std::string& name);

  // How long requests for data may be if `wanted` bytes (a power of two) are: a power of two.
  uint64_t request(uint64_t wanted) const;
};

}  // namespace copy
