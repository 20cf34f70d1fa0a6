// Reads inodes of ext2, ext3 and ext4, and finds the contents of files.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "guest/filesystem/ext_superblock.h"
#include "guest/filesystem/guest_files.h"
#include "guest/reading/byte_view.h"
#include "guest/reading/reading.h"

namespace vc::guest {

struct ExtInode : MappedFile {
  bool is_indexed = false;     // a directory with an index
  uint32_t checksum_seed = 0;  // for the checksums of its metadata blocks
};

class ExtFiles final : public GuestFiles {
 public:
  // All arguments must outlive the object. `inode_tables`: the first block of each group's table.
  ExtFiles(const ByteView& view, const ExtSuperblock& super,
           const std::vector<uint64_t>& inode_tables)
      : GuestFiles(view, super.block_size), super_(super), inode_tables_(inode_tables) {}

  Result<std::optional<MappedFile>> find(std::string_view path) const override;

  // Returns an error if the inode is damaged, or if its layout is not supported.
  Result<ExtInode> inode(uint64_t number) const;

 private:
  Result<void> check_checksum(uint64_t number, const Fields& it, ExtInode& inode) const;
  Result<void> read_extents(const Fields& node, unsigned depth, ExtInode& inode) const;
  Result<void> read_extent_block(uint64_t block, unsigned depth, ExtInode& inode) const;
  Result<void> read_block_map(const Fields& map, ExtInode& inode) const;
  Result<void> read_indirect(uint64_t block, unsigned level, uint64_t& logical,
                             ExtInode& inode) const;
  Result<void> add_run(const FileRun& run, ExtInode& inode) const;
  Result<void> add_map_block(uint64_t block, ExtInode& inode) const;
  Result<std::optional<uint32_t>> look_up(const ExtInode& directory, std::string_view name) const;
  Result<std::optional<uint32_t>> look_up_in(const Fields& block, const ExtInode& directory,
                                             std::string_view name) const;
  Result<void> check_entries(const Fields& block, const ExtInode& directory) const;

  const ExtSuperblock& super_;
  const std::vector<uint64_t>& inode_tables_;
};

}  // namespace vc::guest
