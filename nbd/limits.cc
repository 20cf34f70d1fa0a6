#include "nbd/limits.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cerrno>

namespace vc::nbd {

namespace {

// What servers must accept when they announce no limits (NBD protocol, "Block size constraints").
constexpr uint64_t kDefaultMaximum = 32 << 20;
// The largest minimum that the protocol allows (same section).
constexpr int64_t kLargestMinimum = 64 << 10;
// The smallest maximum accepted here: splitting requests into many more parts would need much
// memory.
constexpr int64_t kSmallestMaximum = 512;

}  // namespace

std::string dirty_bitmap_context(const std::string& bitmap) {
  return "qemu:dirty-bitmap:" + bitmap;
}

Result<NbdLimits> NbdLimits::of(nbd_handle* handle, const std::string& name) {
  NbdLimits limits;
  const int64_t size = nbd_get_size(handle);
  if (size < 0)
    return fail(
        Error::protocol(EPROTO, name + ": the server reports no disk size, or one above 8 EiB"));
  limits.size = static_cast<uint64_t>(size);
  const int64_t minimum = nbd_get_block_size(handle, LIBNBD_SIZE_MINIMUM);
  const int64_t preferred = nbd_get_block_size(handle, LIBNBD_SIZE_PREFERRED);
  const int64_t maximum = nbd_get_block_size(handle, LIBNBD_SIZE_MAXIMUM);
  if (minimum > kLargestMinimum || (minimum > 0 && !std::has_single_bit(uint64_t(minimum))))
    return fail(
        Error::protocol(EPROTO, fmt::format("{}: the server reports a minimum block size of {} "
                                            "bytes: not a power of two up to 65536",
                                            name, minimum)));
  if (maximum > 0 && maximum < kSmallestMaximum)
    return fail(Error::protocol(
        EPROTO,
        fmt::format("{}: the server accepts at most {} bytes in a request: at least {} are needed",
                    name, maximum, kSmallestMaximum)));
  if (minimum > 0) limits.minimum = static_cast<uint64_t>(minimum);
  if (preferred > 0) limits.preferred = std::bit_floor(static_cast<uint64_t>(preferred));
  limits.preferred = std::max(limits.preferred, limits.minimum);
  limits.maximum = maximum > 0 ? static_cast<uint64_t>(maximum) : kDefaultMaximum;
  limits.maximum = std::max(limits.maximum, limits.minimum);
  limits.read_only = nbd_is_read_only(handle) == 1;
  limits.multi_conn = nbd_can_multi_conn(handle) == 1;
  limits.can_flush = nbd_can_flush(handle) == 1;
  limits.can_trim = nbd_can_trim(handle) == 1;
  limits.can_zero = nbd_can_zero(handle) == 1;
  limits.can_fast_zero = limits.can_zero && nbd_can_fast_zero(handle) == 1;
  limits.can_fua = nbd_can_fua(handle) == 1;
  return limits;
}

uint64_t NbdLimits::request(uint64_t wanted) const {
  return std::max(std::min(std::bit_floor(maximum), wanted), minimum);
}

}  // namespace vc::nbd
