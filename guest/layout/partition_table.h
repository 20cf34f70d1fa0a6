// Reads the partitions of a disk: a GPT (UEFI specification), or an MBR with logical partitions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "guest/reading/byte_view.h"

namespace vc::guest {

struct Partition {
  unsigned number;         // Linux's number: from 1; logical: from 5
  uint64_t begin;          // bytes
  uint64_t length;         // bytes
  std::string left_alone;  // reason to leave it alone, by its type; empty: none
  std::string other = {};  // owner by its type: no supported format is trusted then; empty: none
};

struct PartitionTable {
  enum class Kind { kNone, kMbr, kGpt } kind = Kind::kNone;
  uint32_t sector = 512;              // unit of the table, bytes
  std::vector<Partition> partitions;  // ordered by number
};

// Returns true if `start`, the first kTableHead bytes of a device, has a table of any kind.
bool has_partition_table(const Fields& start);
inline constexpr uint64_t kTableHead = 4096 + 512;

// Returns an error if a table is damaged, contradicts itself, or may be a remnant.
Result<PartitionTable> read_partition_table(const ByteView& disk);

}  // namespace vc::guest
