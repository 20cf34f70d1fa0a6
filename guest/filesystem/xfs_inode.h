// Reads inodes of XFS, and finds the contents of files.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/result.h"
#include "guest/filesystem/guest_files.h"
#include "guest/filesystem/xfs_superblock.h"
#include "guest/reading/block.h"
#include "guest/reading/byte_view.h"

namespace vc::guest {

struct XfsInode : MappedFile {
  Block within{0};  // contents in the inode
  bool is_within = false;
  uint64_t records = 0;  // number of records in its map
};

class XfsFiles final : public GuestFiles {
 public:
  // Both must outlive the object.
  XfsFiles(const ByteView& view, const XfsSuperblock& super)
      : GuestFiles(view, super.block_size), super_(super) {}

  Result<std::optional<MappedFile>> find(std::string_view path) const override;

 private:
  // Returns an error if the inode is damaged, or if its layout is not supported.
  Result<XfsInode> inode(uint64_t number) const;
  Result<void> check_header(const Fields& it, uint64_t number) const;
  Result<void> read_contents(const Fields& it, XfsInode& inode) const;
  Result<void> read_records(const Fields& records, size_t count, XfsInode& inode) const;
  Result<void> read_root(const Fields& root, XfsInode& inode) const;
  Result<void> read_node(uint64_t number, unsigned level, XfsInode& inode) const;
  Result<void> check_node(const Fields& node, uint64_t block, unsigned level,
                          const XfsInode& inode) const;
  Result<std::optional<uint64_t>> look_up(const XfsInode& directory, std::string_view name) const;

  const XfsSuperblock& super_;
};

}  // namespace vc::guest
