#include "guest/filesystem/btrfs.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>

#include "base/rounding.h"
#include "guest/filesystem/btrfs_chunks.h"
#include "guest/filesystem/btrfs_tree.h"

namespace vc::guest {

namespace {

constexpr uint64_t kSuperAt = 64 << 10;
constexpr uint64_t kSuperSize = 4096;
constexpr std::array<uint64_t, 3> kSupers{64 << 10, 64 << 20, uint64_t{256} << 30};
constexpr uint64_t kSuperSpace = 64 << 10;
// btrfs allocates nothing in the first MiB, but a boot loader may be there.
constexpr uint64_t kFirstBytes = 1 << 20;
constexpr uint64_t kWritten = 1;  // a flag of the superblock
// Every supported feature was tested. Unsupported: RAID56, RAID1C34, extent tree v2, zoned.
constexpr uint64_t kKnownIncompat = 0x1077F;
constexpr uint64_t kMetadataUuid = 0x400;
constexpr uint64_t kKnownRoCompat = 0xF;
constexpr uint64_t kBlockGroupTree = 0x8;

enum Tree : uint64_t { kRootTree = 1, kExtentTree = 2, kChunkTree = 3, kBlockGroups = 11 };
enum ItemType : uint8_t {
  kRootItem = 132,
  kExtentItem = 168,
  kMetadataItem = 169,
  kBlockGroupItem = 192,
  kChunkItem = 228,
};

bool probe(const Fields& head) {
  return head.has(kSuperAt + 0x40, "_BHRfS_M");
}

struct BlockGroup {
  uint64_t length;  // bytes
  uint64_t used;    // bytes in use, according to the filesystem
  uint64_t found = 0;
};

class Filesystem {
 public:
  static Result<Reading> read(const ByteView& view);

 private:
  Filesystem(const ByteView& view, const Fields& super)
      : view_(view),
        super_(super),
        device_size_(super.le64(0xC9 + 8)),
        sector_(super.le32(0x90)),
        chunks_(super.le64(0xC9), device_size_),
        trees_(
            view, chunks_, static_cast<BtrfsChecksum>(super.le16(0xC4)), super.le32(0x94),
            // Upper limit of nodes: they are part of the bytes in use.
            std::min(super.le64(0x78), view.size()) / std::max<uint64_t>(super.le32(0x94), 1),
            std::string(super.text((super.le64(0xBC) & kMetadataUuid) != 0 ? 0x23B : 0x20, 16))) {}

  Result<void> check_super() const;
  Result<void> read_chunks();
  Result<void> read_roots();
  Result<void> read_extents();
  Result<void> add_extent(uint64_t logical, uint64_t length);
  Result<void> check_sums() const;
  Result<Ranges> free();
  uint64_t node_size() const { return super_.le32(0x94); }

  const ByteView& view_;
  const Fields super_;
  const uint64_t device_size_;  // bytes
  const uint64_t sector_;       // bytes
  BtrfsChunks chunks_;
  BtrfsTrees trees_;
  std::optional<BtrfsRoot> extent_root_;
  std::optional<BtrfsRoot> group_root_;
  std::map<uint64_t, BlockGroup> groups_;  // by logical address
  std::vector<Range> extents_;             // logical addresses
  Ranges::Builder used_;                   // addresses on the device
};

Result<void> Filesystem::check_super() const {
  if (super_.le16(0xC4) > static_cast<uint16_t>(BtrfsChecksum::kXxhash64))
    return doubt("the type of its checksums is unknown");
  if (!has_btrfs_checksum(static_cast<BtrfsChecksum>(super_.le16(0xC4)), super_))
    return doubt("the checksum of its superblock is wrong");
  if ((super_.le64(0x38) & ~kWritten) != 0) return doubt("a conversion of it has not finished");
  const uint64_t incompat = super_.le64(0xBC);
  const uint64_t ro_compat = super_.le64(0xB4);
  if ((incompat & ~kKnownIncompat) != 0 || (ro_compat & ~kKnownRoCompat) != 0)
    return doubt(fmt::format("it has unknown features ({:x}/{:x})", incompat, ro_compat));
  // The log's blocks, and the blocks that it refers to, are in no other tree.
  if (super_.le64(0x60) != 0) return unclean("its log must be replayed");
  if (super_.le64(0x88) != 1) return doubt(fmt::format("it has {} devices", super_.le64(0x88)));
  if (!is_power_of_two(node_size()) || node_size() < 4096 || node_size() > 64 << 10 ||
      !is_power_of_two(sector_) || sector_ < 4096 || sector_ > 64 << 10 || super_.le32(0xA0) > 2048)
    return doubt("its geometry is invalid");
  if (device_size_ > view_.size()) return doubt("it is larger than its partition");
  return {};
}

Result<void> Filesystem::read_chunks() {
  RETURN_IF_ERROR(chunks_.add_system_chunks(super_.part(0x32B, super_.le32(0xA0))));
  // Adds each chunk at once: the next block may be in it.
  return trees_.walk({super_.le64(0x58), super_.u8(0xC7), super_.le64(0xA4)}, kChunkTree,
                     [&](const BtrfsTrees::Item& item) -> Result<void> {
                       if (item.type != kChunkItem) return {};
                       return chunks_.add(item.offset, item.data);
                     });
}

Result<void> Filesystem::read_roots() {
  const BtrfsRoot root{super_.le64(0x50), super_.u8(0xC6), super_.le64(0x48)};
  RETURN_IF_ERROR(trees_.walk(root, kRootTree, [&](const BtrfsTrees::Item& item) -> Result<void> {
    if (item.type != kRootItem) return {};
    const BtrfsRoot tree{item.data.le64(176), item.data.u8(238), item.data.le64(160)};
    if (item.object == kExtentTree) extent_root_ = tree;
    if (item.object == kBlockGroups) group_root_ = tree;
    return {};
  }));
  if (!extent_root_) return doubt("it has no extent tree");
  const bool is_apart = (super_.le64(0xB4) & kBlockGroupTree) != 0;
  if (is_apart && !group_root_) return doubt("it has no block group tree");
  if (!is_apart) group_root_.reset();
  return {};
}

Result<void> Filesystem::read_extents() {
  uint64_t end = 0;
  const auto visit = [&](const BtrfsTrees::Item& item) -> Result<void> {
    if (item.type == kBlockGroupItem)
      groups_[item.object] = BlockGroup{item.offset, item.data.le64(0)};
    if (item.type != kExtentItem && item.type != kMetadataItem) return {};
    const uint64_t length = item.type == kExtentItem ? item.offset : node_size();
    if (item.object < end || length == 0 || item.object + length < item.object)
      return doubt("its extents overlap");
    end = item.object + length;
    if (!extents_.empty() && extents_.back().end == item.object)
      extents_.back().end = end;
    else
      extents_.push_back({item.object, end});
    return {};
  };
  RETURN_IF_ERROR(trees_.walk(*extent_root_, kExtentTree, visit));
  if (group_root_) {
    RETURN_IF_ERROR(trees_.walk(*group_root_, kBlockGroups, visit));
  }
  for (const Range& extent : extents_) RETURN_IF_ERROR(add_extent(extent.begin, extent.length()));
  return {};
}

// A joined extent may cover several block groups.
Result<void> Filesystem::add_extent(uint64_t logical, uint64_t length) {
  while (length > 0) {
    auto group = groups_.upper_bound(logical);
    if (group == groups_.begin()) return doubt("an extent is outside of all block groups");
    --group;
    const uint64_t offset = logical - group->first;
    if (offset >= group->second.length) return doubt("an extent is outside of all block groups");
    const uint64_t here = std::min(length, group->second.length - offset);
    ASSIGN_OR_RETURN(const auto places, chunks_.places(logical, here));
    for (const uint64_t place : places) used_.add(place, place + here);
    group->second.found += here;
    logical += here;
    length -= here;
  }
  return {};
}

Result<void> Filesystem::check_sums() const {
  if (groups_.size() != chunks_.all().size()) return doubt("its block groups and chunks differ");
  uint64_t sum = 0;
  for (const auto& [logical, group] : groups_) {
    const auto chunk = chunks_.all().find(logical);
    if (chunk == chunks_.all().end() || chunk->second.length != group.length)
      return doubt("its block groups and chunks differ");
    if (group.found != group.used)
      return doubt(fmt::format("block group {:#x} has {} bytes in use, but its item says {}",
                               logical, group.found, group.used));
    sum += group.found;
  }
  if (sum != super_.le64(0x78)) return doubt("its superblock has a wrong number of bytes in use");
  ASSIGN_OR_RETURN(const uint64_t allocated, chunks_.allocated());
  if (allocated != super_.le64(0xC9 + 16))
    return doubt("its superblock has a wrong number of bytes in chunks");
  return {};
}

Result<Ranges> Filesystem::free() {
  used_.add(0, kFirstBytes);
  for (const uint64_t at : kSupers) used_.add(at, at + kSuperSpace);
  return one_range(0, round_down(device_size_, sector_)).without(used_.take());
}

Result<Reading> Filesystem::read(const ByteView& view) {
  ASSIGN_OR_RETURN(const Block super, view.block(kSuperAt, kSuperSize));
  Filesystem it(view, super.fields());
  RETURN_IF_ERROR(it.check_super());
  RETURN_IF_ERROR(it.read_chunks());
  RETURN_IF_ERROR(it.read_roots());
  RETURN_IF_ERROR(it.read_extents());
  RETURN_IF_ERROR(it.check_sums());
  Reading reading;
  ASSIGN_OR_RETURN(reading.free, it.free());
  // A mounted btrfs is consistent after each commit, so it never looks unclean.
  reading.is_unmarked = true;
  reading.uuid = uuid_text(super.fields().part(0x20, 16));
  reading.label = padded_text(super.fields().part(0x12B, 256));
  return reading;
}

}  // namespace

const Format kBtrfs{"btrfs", probe, Filesystem::read, no_swap_files};

}  // namespace vc::guest
