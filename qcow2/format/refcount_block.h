// Refcounts in a refcount block (qcow2 specification, "Refcount block").
//
// A refcount has 1 << order bits, order 0..6. Refcounts of at least a byte are big-endian. Narrower
// ones fill each byte from its least significant bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "base/byte_order.h"

namespace vc::qcow2 {

constexpr uint64_t max_refcount(unsigned order) {
  return order == 6 ? std::numeric_limits<uint64_t>::max() : (uint64_t{1} << (1u << order)) - 1;
}

// Returns the clusters that one block counts; a block fills one cluster.
constexpr uint64_t refcounts_per_block(unsigned cluster_bits, unsigned order) {
  return uint64_t{1} << (cluster_bits + 3 - order);
}

inline uint64_t get_refcount(std::span<const std::byte> block, uint64_t index, unsigned order) {
  switch (order) {
    case 3:
      return std::to_integer<uint64_t>(block[index]);
    case 4:
      return load_be16(&block[index * 2]);
    case 5:
      return load_be32(&block[index * 4]);
    case 6:
      return load_be64(&block[index * 8]);
    default: {
      const uint64_t bit = index << order;
      return (std::to_integer<uint64_t>(block[bit / 8]) >> (bit % 8)) & max_refcount(order);
    }
  }
}

// `count` must be at most max_refcount (order).
inline void set_refcount(std::span<std::byte> block, uint64_t index, unsigned order,
                         uint64_t count) {
  switch (order) {
    case 3:
      block[index] = static_cast<std::byte>(count);
      break;
    case 4:
      store_be16(&block[index * 2], static_cast<uint16_t>(count));
      break;
    case 5:
      store_be32(&block[index * 4], static_cast<uint32_t>(count));
      break;
    case 6:
      store_be64(&block[index * 8], count);
      break;
    default: {
      const uint64_t bit = index << order;
      const uint64_t others =
          std::to_integer<uint64_t>(block[bit / 8]) & ~(max_refcount(order) << (bit % 8));
      block[bit / 8] = static_cast<std::byte>(others | (count << (bit % 8)));
    }
  }
}

}  // namespace vc::qcow2
