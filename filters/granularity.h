// The granularity parameter of filters, and the block sizes of the layer below.
#pragma once

#include <nbdkit-filter.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <optional>

namespace vc::filters {

constexpr uint64_t kMinGranularity = 512;
// NBD's limit on a preferred block size.
constexpr uint64_t kMaxGranularity = 32 << 20;

// Parses "<key>=<value>". Reports errors with nbdkit_error and returns nullopt.
inline std::optional<uint64_t> parse_granularity(const char* key, const char* value) {
  const int64_t size = nbdkit_parse_size(value);
  if (size == -1) return std::nullopt;
  const auto granularity = static_cast<uint64_t>(size);
  if (std::has_single_bit(granularity) && granularity >= kMinGranularity &&
      granularity <= kMaxGranularity)
    return granularity;
  nbdkit_error("%s=%s: the value must be a power of two from 512 to 32M", key, value);
  return std::nullopt;
}

// Block sizes of the layer below, bytes; 0: not reported.
struct BlockSize {
  uint32_t minimum = 0;
  uint32_t preferred = 0;
  uint32_t maximum = 0;
};

inline std::optional<BlockSize> block_size_of(nbdkit_next* next) {
  BlockSize it;
  if (next->block_size(next, &it.minimum, &it.preferred, &it.maximum) == -1) return std::nullopt;
  return it;
}

}  // namespace vc::filters
