// Maps logical addresses of a btrfs to addresses on its device.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "base/result.h"
#include "guest/reading/block.h"
#include "guest/reading/ranges.h"

namespace vc::guest {

class BtrfsChunks {
 public:
  struct Chunk {
    uint64_t length;               // bytes
    uint64_t type;                 // flags
    std::vector<uint64_t> places;  // addresses on the device, bytes: one or two copies
    friend bool operator==(const Chunk&, const Chunk&) = default;
  };

  BtrfsChunks(uint64_t device_id, uint64_t device_size)
      : device_id_(device_id), device_size_(device_size) {}

  // Adds a chunk item. Adding the same item again is no error.
  Result<void> add(uint64_t logical, const Fields& item);
  // Adds the keys and items in a superblock.
  Result<void> add_system_chunks(const Fields& array);

  const std::map<uint64_t, Chunk>& all() const { return chunks_; }
  // Returns the addresses of the copies of [logical, logical + length). The range must lie in one
  // chunk.
  Result<std::vector<uint64_t>> places(uint64_t logical, uint64_t length) const;
  // Returns the bytes of the device that chunks occupy. Returns an error if two chunks overlap.
  Result<uint64_t> allocated() const;

  static size_t item_size(unsigned stripes) { return 48 + 32 * size_t{stripes}; }

 private:
  const uint64_t device_id_;
  const uint64_t device_size_;
  std::map<uint64_t, Chunk> chunks_;  // by logical address
};

}  // namespace vc::guest
