// Which partition table a disk has, and of what sectors.
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
    kNone,        // none, or none that is known
    kMbr,         // of DOS
    kGpt,         // Linux takes it as it is
    kDamagedGpt,  // Linux sees no partitions
  };

  Kind kind = Kind::kNone;
  uint64_t sector_size = 512;  // bytes: 512 or 4096
  std::string problem;         // of kDamagedGpt: what is wrong, and what to do
};

const char* to_string(PartitionTable::Kind kind);

// Reads the bytes from `at` on, all of them within the disk.
using ReadDisk = std::function<Result<void>(uint64_t at, std::span<std::byte> to)>;

// Of a disk of `size` bytes.  Nothing in the disk says how large its sectors are: a GPT has its
// header in the second of them, whose checksums tell which it is.  Of an MBR the first partition
// decides, which begins with a filesystem.  An error is one of `read`.
//
// See the UEFI specification, "GUID Partition Table (GPT) Disk Layout", and Linux's
// block/partitions/efi.c, whose rules are followed: without a protective MBR a GPT does not count,
// nor does a backup whose primary is damaged.
Result<PartitionTable> find_partition_table(uint64_t size, const ReadDisk& read);

}  // namespace vc::appliance
