// Inodes of ext2, ext3 and ext4, and where the contents of files lie.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "guest/filesystem/ext_superblock.h"
#include "guest/reading/byte_view.h"
#include "guest/reading/reading.h"

namespace vc::guest {

// Blocks of a file that follow each other on the volume.
struct ExtRun {
  uint64_t logical;  // the first one's number in the file
  uint64_t block;    // on the volume
  uint64_t length;   // blocks
};

struct ExtInode {
  uint32_t number = 0;
  uint64_t size = 0;  // bytes
  bool is_directory = false;
  bool is_file = false;
  bool is_symbolic_link = false;
  bool is_indexed = false;           // a directory with an index beside its entries
  uint32_t checksum_seed = 0;        // of its blocks of metadata
  std::vector<ExtRun> runs;          // by `logical`; what is missing is a hole
  std::vector<uint64_t> map_blocks;  // blocks of the map itself
};

class ExtFiles {
 public:
  static constexpr uint32_t kRoot = 2;

  // All outlive it.  `inode_tables`: the first block of each group's.
  ExtFiles(const ByteView& view, const ExtSuperblock& super,
           const std::vector<uint64_t>& inode_tables)
      : view_(view), super_(super), inode_tables_(inode_tables) {}

  // An error if the inode is damaged, or keeps its contents in a way that is not understood.
  Result<ExtInode> inode(uint32_t number) const;
  // The inode of an absolute path.  Returns nullopt if there is none; a symbolic link on the way is
  // an error, one at its end is returned.
  Result<std::optional<ExtInode>> find(std::string_view path) const;
  // The first bytes of a file, at most `limit`; holes are zeros.
  Result<Block> read(const ExtInode& inode, uint64_t limit) const;

 private:
  Result<void> check_checksum(uint32_t number, const Fields& it, ExtInode& inode) const;
  Result<void> read_extents(const Fields& node, unsigned depth, ExtInode& inode) const;
  Result<void> read_extent_block(uint64_t block, unsigned depth, ExtInode& inode) const;
  Result<void> read_block_map(const Fields& map, ExtInode& inode) const;
  Result<void> read_indirect(uint64_t block, unsigned level, uint64_t& logical,
                             ExtInode& inode) const;
  Result<void> add_run(const ExtRun& run, ExtInode& inode) const;
  Result<void> add_map_block(uint64_t block, ExtInode& inode) const;
  Result<std::optional<uint32_t>> look_up(const ExtInode& directory, std::string_view name) const;
  Result<std::optional<uint32_t>> look_up_in(const Fields& block, const ExtInode& directory,
                                             std::string_view name) const;
  Result<void> check_entries(const Fields& block, const ExtInode& directory) const;

  const ByteView& view_;
  const ExtSuperblock& super_;
  const std::vector<uint64_t>& inode_tables_;
};

}  // namespace vc::guest
