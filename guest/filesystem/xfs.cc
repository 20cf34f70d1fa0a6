#include "guest/filesystem/xfs.h"

#include <fmt/format.h>

#include "guest/filesystem/swap_files.h"
#include "guest/filesystem/xfs_free_space.h"
#include "guest/filesystem/xfs_inode.h"
#include "guest/filesystem/xfs_log.h"
#include "guest/filesystem/xfs_superblock.h"

namespace vc::guest {

namespace {

constexpr uint64_t kSector = 512;

bool probe(const Fields& head) {
  return head.has(0, "XFSB");
}

// Returns the number of free blocks, in the terms of the superblock's count.
Result<uint64_t> read_groups(const ByteView& view, const XfsSuperblock& super,
                             Ranges::Builder& free, Ranges::Builder& own) {
  uint64_t sum = 0;
  for (uint64_t group = 0; group < super.groups; ++group) {
    ASSIGN_OR_RETURN(const uint64_t counted, read_xfs_free_space(view, super, group, free, own));
    sum += counted;
  }
  return sum;
}

Result<Reading> read(const ByteView& view) {
  ASSIGN_OR_RETURN(const Block block, view.block(0, 512));
  const Fields it = block.fields();
  ASSIGN_OR_RETURN(const XfsSuperblock super, XfsSuperblock::read(view, it));
  RETURN_IF_ERROR(check_xfs_log(view, super.log_at * super.block_size,
                                super.log_blocks * super.block_size / kSector));
  Ranges::Builder free;
  Ranges::Builder own;
  ASSIGN_OR_RETURN(const uint64_t sum, read_groups(view, super, free, own));
  if (super.has_exact_count && sum != super.free_blocks)
    return doubt(fmt::format("its superblock says that {} blocks are free, but {} are",
                             super.free_blocks, sum));
  Reading reading;
  const Ranges blocks = free.take();
  if (blocks.meets(super.log_at, super.log_at + super.log_blocks))
    return doubt("its free space tree marks the log as free");
  reading.free = blocks.scaled(super.block_size, 0);
  reading.uuid = uuid_text(it.part(0x20, 16));
  reading.label = padded_text(it.part(0x6C, 12));
  return reading;
}

Result<std::vector<FoundFile>> find(const ByteView& view, const Ranges& free,
                                    const FileKinds& kinds) {
  if (!kinds.swap) return std::vector<FoundFile>();
  ASSIGN_OR_RETURN(const Block block, view.block(0, 512));
  ASSIGN_OR_RETURN(const XfsSuperblock super, XfsSuperblock::read(view, block.fields()));
  Ranges::Builder blocks;
  Ranges::Builder own;
  RETURN_IF_ERROR(read_groups(view, super, blocks, own));
  own.add(super.log_at, super.log_at + super.log_blocks);
  return find_swap_files(XfsFiles(view, super), free, own.take());
}

}  // namespace

const Format kXfs{"xfs", probe, read, find};

}  // namespace vc::guest
