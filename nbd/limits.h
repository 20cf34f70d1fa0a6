// The abilities of a server, and its limits on requests.
#pragma once

#include <libnbd.h>

#include <cstdint>
#include <string>

#include "base/result.h"

namespace vc::nbd {

// Flags of base:allocation and of QEMU's dirty bitmaps.  A hole without kStatusZero has undefined
// content.
constexpr uint32_t kStatusHole = 1;
constexpr uint32_t kStatusZero = 2;
constexpr uint32_t kStatusDirty = 1;

std::string dirty_bitmap_context(const std::string& bitmap);

struct NbdLimits {
  uint64_t size = 0;          // of the disk, bytes
  uint64_t minimum = 1;       // alignment of requests, bytes; a power of two
  uint64_t preferred = 4096;  // bytes, a power of two, at least `minimum`
  uint64_t maximum = 0;       // of a request that carries data, bytes
  bool read_only = false;
  // Without multi_conn, a server may accept only one client and let a second one wait forever. A
  // flush on one connection then does not affect the others.
  bool multi_conn = false;
  bool can_flush = false;
  bool can_trim = false;
  bool can_zero = false;
  bool can_fast_zero = false;
  bool can_fua = false;

  // Reads the limits of a handle that has just connected to `name`. Returns an error if the
  // server's values are invalid.
  static Result<NbdLimits> of(nbd_handle* handle, const std::string& name);

  // Returns the size of data requests, a power of two. `wanted`: wanted size, bytes, a power of
  // two.
  uint64_t request(uint64_t wanted) const;
};

}  // namespace vc::nbd
