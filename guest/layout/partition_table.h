// The partitions of a disk: a GPT (UEFI specification), or an MBR with logical partitions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "guest/reading/byte_view.h"

namespace vc::guest {

struct Partition {
  unsigned number;         // as Linux counts: the first is 1, the first logical one 5
  uint64_t begin;          // bytes
  uint64_t length;         // bytes
  std::string left_alone;  // why nothing may be done with it, by its type; empty: something may
  std::string other = {};  // who has it by its type, so that no format of ours is believed in it
};

struct PartitionTable {
  enum class Kind { kNone, kMbr, kGpt } kind = Kind::kNone;
  uint32_t sector = 512;              // bytes: what places are counted in
  std::vector<Partition> partitions;  // by their number
};

// Whether `start`, the first kTableHead bytes of a device, has a table of any kind.
bool has_partition_table(const Fields& start);
inline constexpr uint64_t kTableHead = 4096 + 512;

// An error when there is a table that is damaged, that contradicts itself, or that may be a
// remnant.
Result<PartitionTable> read_partition_table(const ByteView& disk);

}  // namespace vc::guest
