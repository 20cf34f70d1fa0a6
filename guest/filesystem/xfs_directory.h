// Reads directories of XFS (directory format 2, which XFS versions 4 and 5 use).
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/result.h"
#include "guest/filesystem/xfs_superblock.h"
#include "guest/reading/block.h"

namespace vc::guest {

// Returns the inode of `name` in a directory whose entries are in its own inode. nullopt if there
// is none.
Result<std::optional<uint64_t>> find_in_xfs_inode(const Fields& entries, std::string_view name,
                                                  const XfsSuperblock& super);

// Returns the inode of `name` in a block of a directory. nullopt if there is none. `at`: place of
// the block, bytes of the volume. Returns an error if the block is damaged, or does not belong to
// the directory `owner`.
Result<std::optional<uint64_t>> find_in_xfs_block(const Fields& block, std::string_view name,
                                                  const XfsSuperblock& super, uint64_t owner,
                                                  uint64_t at);

}  // namespace vc::guest
