// Finds the type of a disk's partition table, and the size of its sectors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "base/result.h"

namespace vc::appliance {

struct PartitionTable {
  enum class Kind {
    kNone,        // none, or an unknown one
    kMbr,         // DOS
    kGpt,         // valid for Linux
    kDamagedGpt,  // Linux sees no partitions
  };

  Kind kind = Kind::kNone;
  uint64_t sector_size = 512;  // 512 or 4096 bytes
  std::string problem;         // kDamagedGpt: the damage, with advice
};

const char* to_string(PartitionTable::Kind kind);

// Reads bytes from offset `at`. The range must be within the disk.
using ReadDisk = std::function<Result<void>(uint64_t at, std::span<std::byte> to)>;

// Finds the table of a disk of `size` bytes. No field holds the sector size. The header of a GPT is
// in sector 1, and its checksum shows which sector size is right. With an MBR, the first partition
// must begin with a filesystem at the right sector size. All errors come from `read`.
//
// Follows Linux's rules (block/partitions/efi.c): a GPT without a protective MBR does not count,
// and neither does the backup of a damaged primary table. See also the UEFI specification, "GUID
// Partition Table (GPT) Disk Layout".
Result<PartitionTable> find_partition_table(uint64_t size, const ReadDisk& read);

}  // namespace vc::appliance
