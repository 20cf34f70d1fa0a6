#include "guest/filesystem/ext.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "base/rounding.h"
#include "guest/filesystem/ext_inode.h"
#include "guest/filesystem/ext_superblock.h"
#include "guest/filesystem/swap_files.h"
#include "guest/reading/bitmap_runs.h"
#include "guest/reading/checksums.h"

namespace vc::guest {

namespace {

constexpr uint16_t kBlockUninit = 2;
// Most neighbouring blocks to read at once: flex_bg puts bitmaps side by side.
constexpr uint64_t kMostNeighbours = 256;

bool probe(const Fields& head) {
  return head.size() >= 4096 && head.le16(kExtSuperblockAt + 0x38) == 0xEF53;
}

struct Group {
  uint64_t block_bitmap = 0;  // a block number
  uint64_t free = 0;          // clusters
  uint32_t checksum = 0;      // of the block bitmap
  bool is_uninit = false;     // the bitmap was never written
};

class Filesystem {
 public:
  Filesystem(const ByteView& view, ExtSuperblock super) : view_(view), super_(std::move(super)) {}

  // Returns the free bytes.
  Result<Ranges> free();
  // `free`: the result of free(), in bytes.
  Result<std::vector<FoundFile>> swap_files(const Ranges& free);

 private:
  Result<void> read_descriptors();
  Result<Group> decode(uint64_t number, const Fields& descriptor);
  Result<void> check_descriptor(uint64_t number, const Fields& descriptor) const;
  Result<void> add_structure(uint64_t number, uint64_t block, uint64_t length);
  Result<void> read_bitmaps();
  Result<void> take_bitmap(uint64_t number, std::span<const std::byte> bitmap);
  Result<void> take_uninit(uint64_t number, const Ranges& metadata);
  Result<void> check_sums(const Ranges& free, const Ranges& metadata) const;
  Result<void> check_count(uint64_t number, uint64_t found) const;
  Result<void> check_journal(const Ranges& free) const;

  const ByteView& view_;
  const ExtSuperblock super_;
  std::vector<Group> groups_;
  std::vector<uint64_t> inode_tables_;  // first block of each table
  Ranges::Builder metadata_;            // blocks
  Ranges::Builder structures_;          // blocks of bitmaps and inode tables
  uint64_t structure_blocks_ = 0;       // number of blocks of bitmaps and inode tables
  Ranges::Builder free_;                // blocks
  uint64_t free_clusters_ = 0;
};

Result<Ranges> Filesystem::free() {
  // The boot block belongs to no group.
  metadata_.add(0, super_.superblock_of(0) + 1);
  RETURN_IF_ERROR(read_descriptors());
  if (structures_.take().total() != structure_blocks_)
    return doubt("two of its block groups share a bitmap or an inode table");
  const Ranges metadata = metadata_.take();
  RETURN_IF_ERROR(read_bitmaps());
  for (uint64_t number = 0; number < groups_.size(); ++number)
    if (groups_[number].is_uninit) RETURN_IF_ERROR(take_uninit(number, metadata));
  const Ranges free = free_.take();
  RETURN_IF_ERROR(check_sums(free, metadata));
  RETURN_IF_ERROR(check_journal(free));
  return free.scaled(super_.block_size, 0);
}

Result<std::vector<FoundFile>> Filesystem::swap_files(const Ranges& free) {
  metadata_.add(0, super_.superblock_of(0) + 1);
  RETURN_IF_ERROR(read_descriptors());
  return find_swap_files(ExtFiles(view_, super_, inode_tables_), free, metadata_.take());
}

Result<void> Filesystem::read_descriptors() {
  const uint64_t count = super_.descriptor_blocks();
  for (uint64_t block = 0; block < count;) {
    const uint64_t at = super_.descriptor_block(block);
    uint64_t neighbours = 1;
    while (block + neighbours < count && neighbours < kMostNeighbours &&
           super_.descriptor_block(block + neighbours) == at + neighbours)
      ++neighbours;
    if (at >= super_.blocks) return doubt("its group descriptors are outside of it");
    ASSIGN_OR_RETURN(const Block bytes,
                     view_.block(at * super_.block_size, neighbours * super_.block_size));
    const uint64_t first = block * super_.descriptors_per_block();
    const uint64_t last =
        std::min(super_.groups, (block + neighbours) * super_.descriptors_per_block());
    for (uint64_t number = first; number < last; ++number) {
      ASSIGN_OR_RETURN(const Group group,
                       decode(number, bytes.fields().part((number - first) * super_.descriptor_size,
                                                          super_.descriptor_size)));
      groups_.push_back(group);
    }
    block += neighbours;
  }
  return {};
}

Result<Group> Filesystem::decode(uint64_t number, const Fields& descriptor) {
  RETURN_IF_ERROR(check_descriptor(number, descriptor));
  const bool wide = super_.is_64bit();
  const auto place = [&](size_t low, size_t high) {
    return descriptor.le32(low) | (wide ? uint64_t{descriptor.le32(high)} << 32 : 0);
  };
  Group group;
  group.block_bitmap = place(0x00, 0x20);
  RETURN_IF_ERROR(add_structure(number, group.block_bitmap, 1));
  RETURN_IF_ERROR(add_structure(number, place(0x04, 0x24), 1));
  inode_tables_.push_back(place(0x08, 0x28));
  RETURN_IF_ERROR(add_structure(number, inode_tables_.back(), super_.inode_table));
  super_.add_metadata(number, metadata_);
  group.free = descriptor.le16(0x0C) | (wide ? uint32_t{descriptor.le16(0x2C)} << 16 : 0);
  group.checksum = descriptor.le16(0x18) | (wide ? uint32_t{descriptor.le16(0x38)} << 16 : 0);
  group.is_uninit = (descriptor.le16(0x12) & kBlockUninit) != 0 &&
                    (super_.has_metadata_checksums() || super_.has_group_checksums());
  return group;
}

Result<void> Filesystem::check_descriptor(uint64_t number, const Fields& descriptor) const {
  std::array<std::byte, 4> le_number{};
  for (size_t i = 0; i < le_number.size(); ++i)
    le_number[i] = static_cast<std::byte>(number >> (8 * i) & 0xFF);
  const auto begin = descriptor.bytes().first(0x1E);
  const auto rest = descriptor.bytes().subspan(std::min<size_t>(0x20, descriptor.size()));
  uint32_t expected = descriptor.le16(0x1E);
  if (super_.has_metadata_checksums()) {
    constexpr std::array<std::byte, 2> kZeros{};
    uint32_t crc = crc32c(crc32c(super_.checksum_seed, le_number), begin);
    expected = crc32c(crc32c(crc, kZeros), rest) & 0xFFFF;
  } else if (super_.has_group_checksums()) {
    uint16_t crc = crc16(crc16(crc16(0xFFFF, super_.uuid.bytes()), le_number), begin);
    if (super_.is_64bit()) crc = crc16(crc, rest);
    expected = crc;
  }
  if (!is_right_checksum(descriptor.le16(0x1E), expected))
    return doubt(fmt::format("the checksum of block group {} is wrong", number));
  return {};
}

Result<void> Filesystem::add_structure(uint64_t number, uint64_t block, uint64_t length) {
  if (block < super_.first || block >= super_.blocks || length > super_.blocks - block)
    return doubt(fmt::format("block group {} points outside of the filesystem", number));
  metadata_.add(block, block + length);
  structures_.add(block, block + length);
  structure_blocks_ += length;
  return {};
}

Result<void> Filesystem::read_bitmaps() {
  std::vector<std::pair<uint64_t, uint64_t>> places;  // block, group
  for (uint64_t number = 0; number < groups_.size(); ++number)
    if (!groups_[number].is_uninit) places.emplace_back(groups_[number].block_bitmap, number);
  std::sort(places.begin(), places.end());
  for (size_t i = 0; i < places.size();) {
    size_t neighbours = 1;
    while (i + neighbours < places.size() && neighbours < kMostNeighbours &&
           places[i + neighbours].first == places[i].first + neighbours)
      ++neighbours;
    ASSIGN_OR_RETURN(const Block bytes, view_.block(places[i].first * super_.block_size,
                                                    neighbours * super_.block_size));
    for (size_t k = 0; k < neighbours; ++k)
      RETURN_IF_ERROR(take_bitmap(places[i + k].second,
                                  bytes.bytes().subspan(k * super_.block_size, super_.block_size)));
    i += neighbours;
  }
  return {};
}

Result<void> Filesystem::take_bitmap(uint64_t number, std::span<const std::byte> bitmap) {
  const Group& group = groups_[number];
  if (super_.has_metadata_checksums()) {
    uint32_t crc = crc32c(super_.checksum_seed, bitmap.first(super_.clusters_per_group / 8));
    if (!super_.is_64bit()) crc &= 0xFFFF;
    if (!is_right_checksum(group.checksum, crc))
      return doubt(fmt::format("the checksum of the bitmap of block group {} is wrong", number));
  }
  Ranges::Builder clusters;
  const uint64_t count = divide_up(super_.group_length(number), super_.blocks_per_cluster);
  const uint64_t clear = add_clear_runs(bitmap, count, 0, clusters);
  RETURN_IF_ERROR(check_count(number, clear));
  free_clusters_ += clear;
  const uint64_t begin = super_.group_begin(number);
  for (const Range& run : clusters.take().all())
    free_.add(begin + run.begin * super_.blocks_per_cluster,
              std::min(begin + run.end * super_.blocks_per_cluster, super_.blocks));
  return {};
}

// Takes the whole group as free, except for metadata of any group.
Result<void> Filesystem::take_uninit(uint64_t number, const Ranges& metadata) {
  const uint64_t begin = super_.group_begin(number);
  const uint64_t ratio = super_.blocks_per_cluster;
  const Ranges all = one_range(begin, begin + super_.group_length(number));
  uint64_t clear = 0;
  for (const Range& range : all.without(metadata).all()) {
    // Takes only whole clusters. A cluster that the end of the filesystem cuts counts as whole.
    const uint64_t first = divide_up(range.begin - begin, ratio);
    const uint64_t last = range.end == super_.blocks ? divide_up(range.end - begin, ratio)
                                                     : (range.end - begin) / ratio;
    if (first >= last) continue;
    clear += last - first;
    free_.add(begin + first * ratio, std::min(begin + last * ratio, super_.blocks));
  }
  free_clusters_ += clear;
  return check_count(number, clear);
}

Result<void> Filesystem::check_count(uint64_t number, uint64_t found) const {
  if (found == groups_[number].free) return {};
  return doubt(fmt::format("block group {} has {} free blocks, but its descriptor says {}", number,
                           found, groups_[number].free));
}

Result<void> Filesystem::check_sums(const Ranges& free, const Ranges& metadata) const {
  if (!free.within(metadata).empty()) return doubt("its bitmaps mark metadata as free");
  if (free_clusters_ * super_.blocks_per_cluster != super_.free_blocks &&
      free.total() != super_.free_blocks)
    return doubt(fmt::format("its superblock says that {} blocks are free, but {} are",
                             super_.free_blocks, free.total()));
  return {};
}

Result<void> Filesystem::check_journal(const Ranges& free) const {
  if (super_.journal == 0) return {};
  ASSIGN_OR_RETURN(const MappedFile journal,
                   ExtFiles(view_, super_, inode_tables_).inode(super_.journal));
  Ranges::Builder blocks;
  for (const FileRun& run : journal.runs) blocks.add(run.block, run.block + run.length);
  for (const uint64_t block : journal.map_blocks) blocks.add(block, block + 1);
  if (!free.within(blocks.take()).empty()) return doubt("its bitmaps mark the journal as free");
  return {};
}

Result<Reading> read(const ByteView& view) {
  ASSIGN_OR_RETURN(ExtSuperblock super, ExtSuperblock::read(view));
  Reading reading;
  reading.uuid = uuid_text(super.uuid.fields());
  reading.label = super.label;
  reading.type = super.type();
  ASSIGN_OR_RETURN(reading.free, Filesystem(view, std::move(super)).free());
  return reading;
}

Result<std::vector<FoundFile>> find(const ByteView& view, const Ranges& free,
                                    const FileKinds& kinds) {
  if (!kinds.swap) return std::vector<FoundFile>();
  ASSIGN_OR_RETURN(ExtSuperblock super, ExtSuperblock::read(view));
  return Filesystem(view, std::move(super)).swap_files(free);
}

}  // namespace

const Format kExt{"ext4", probe, read, find};

}  // namespace vc::guest
