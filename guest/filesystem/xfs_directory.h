// Directories of XFS (version 2 of them, which versions 4 and 5 of XFS have).
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/result.h"
#include "guest/filesystem/xfs_superblock.h"
#include "guest/reading/block.h"

namespace vc::guest {

// Returns the inode of `name` in a directory whose entries are in its inode, or nullopt.
Result<std::optional<uint64_t>> find_in_xfs_inode(const Fields& entries, std::string_view name,
                                                  const XfsSuperblock& super);

// Returns the inode of `name` in a block of a directory, or nullopt.  The block lies `at`, in bytes
// of the volume.  An error if it is damaged, or not of the directory `owner`.
Result<std::optional<uint64_t>> find_in_xfs_block(const Fields& block, std::string_view name,
                                                  const XfsSuperblock& super, uint64_t owner,
                                                  uint64_t at);

}  // namespace vc::guest
