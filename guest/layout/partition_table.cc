#include "guest/layout/partition_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>
#include <string_view>
#include <utility>

#include "guest/reading/checksums.h"
#include "guest/reading/reading.h"

namespace guest {

using qcow2::Result;

namespace {

constexpr uint64_t kMbrSector = 512;
constexpr uint64_t kMostEntries = 1024;
constexpr size_t kMostLogical = 256;
constexpr uint8_t kProtective = 0xEE;
constexpr uint8_t kLdm = 0x42;

struct KnownType {
  std::string_view guid;
  const char* why;
};
constexpr std::array kLeftAlone{
    KnownType{"af9b60a0-1431-4f62-bc68-3311714a69ad", "Windows's dynamic disks use it"},
    KnownType{"5808c8aa-7e8f-42e0-85d2-e1e90434cfb3", "Windows's dynamic disks use it"},
    KnownType{"e75caf8f-f680-4cee-afa3-b001e56efc2d", "Windows's Storage Spaces use it"},
    KnownType{"e3c9e316-0b5c-4db8-817d-f92df00215ae", "Windows has reserved it"},
    KnownType{"21686148-6449-6e6f-744e-656564454649", "a boot loader lies in it"},
};

const char* why_left_alone(std::string_view guid) {
  const auto* const found = std::find_if(kLeftAlone.begin(), kLeftAlone.end(),
                                         [&](const KnownType& it) { return it.guid == guid; });
  return found == kLeftAlone.end() ? "" : found->why;
}

Result<std::vector<Partition>> read_gpt(const ByteView& disk, uint64_t sector) {
  ASSIGN_OR_RETURN(const Block block, disk.block(sector, sector));
  const Fields header = block.fields();
  const uint64_t length = header.le32(12);
  if (length < 92 || length > sector) return doubt("its GPT is damaged");
  // The checksum is over the header with zeros in its own place.
  Block zeroed(header.part(0, length));
  std::fill_n(zeroed.bytes().begin() + 16, 4, std::byte{0});
  if (crc32(zeroed.bytes()) != header.le32(16)) return doubt("the checksum of its GPT is wrong");
  const uint64_t at = header.le64(72);
  const uint64_t count = header.le32(80);
  const uint64_t size = header.le32(84);
  if (header.le64(24) != 1 || count > kMostEntries || size < 128 || size > 4096 ||
      !is_power_of_two(size) || at > disk.size() / sector)
    return doubt("its GPT is damaged");
  ASSIGN_OR_RETURN(const Block entries, disk.block(at * sector, count * size));
  if (crc32(entries.bytes()) != header.le32(88))
    return doubt("the checksum of its GPT's entries is wrong");
  std::vector<Partition> partitions;
  for (uint64_t i = 0; i < count; ++i) {
    const Fields entry = entries.fields().part(i * size, size);
    if (entry.part(0, 16).all(0)) continue;
    const uint64_t first = entry.le64(32);
    const uint64_t last = entry.le64(40);
    if (first > last || last >= disk.size() / sector)
      return doubt(fmt::format("entry {} of its GPT lies outside of the disk", i + 1));
    partitions.push_back({static_cast<unsigned>(i + 1), first * sector, (last - first + 1) * sector,
                          why_left_alone(guid_text(entry.part(0, 16)))});
  }
  return partitions;
}

// One of the four entries of an MBR, or of an EBR.
struct MbrEntry {
  uint8_t status;
  uint8_t type;
  uint64_t first;  // in sectors
  uint64_t count;

  MbrEntry(const Fields& sector, size_t index) {
    const Fields it = sector.part(446 + 16 * index, 16);
    status = it.u8(0);
    type = it.u8(4);
    first = it.le32(8);
    count = it.le32(12);
  }
  bool is_used() const { return type != 0 && count != 0; }
  bool is_extended() const { return type == 0x05 || type == 0x0F || type == 0x85; }
};

Result<void> add(const ByteView& disk, unsigned number, uint64_t base, const MbrEntry& entry,
                 std::vector<Partition>& out) {
  if (base + entry.first + entry.count > disk.size() / kMbrSector)
    return doubt(fmt::format("partition {} ends past the end of the disk", number));
  out.push_back({number, (base + entry.first) * kMbrSector, entry.count * kMbrSector,
                 entry.type == kLdm ? "Windows's dynamic disks use it" : ""});
  return {};
}

// Each logical partition has a sector of its own, with where it is and where the next such one is.
Result<void> read_logical(const ByteView& disk, uint64_t extended, std::vector<Partition>& out) {
  std::set<uint64_t> seen;
  for (uint64_t at = extended;;) {
    if (!seen.insert(at).second || seen.size() > kMostLogical || at >= disk.size() / kMbrSector)
      return doubt("the chain of its logical partitions is damaged");
    ASSIGN_OR_RETURN(const Block block, disk.block(at * kMbrSector, kMbrSector));
    const Fields sector = block.fields();
    if (sector.be16(510) != 0x55AA) return doubt("the chain of its logical partitions is damaged");
    const MbrEntry here(sector, 0);
    if (here.is_used())
      RETURN_IF_ERROR(add(disk, static_cast<unsigned>(4 + seen.size()), at, here, out));
    const MbrEntry next(sector, 1);
    if (!next.is_used() || !next.is_extended()) return {};
    at = extended + next.first;
  }
}

Result<std::vector<Partition>> read_mbr(const ByteView& disk, const Fields& sector) {
  std::vector<Partition> partitions;
  for (unsigned i = 0; i < 4; ++i) {
    const MbrEntry entry(sector, i);
    if (!entry.is_used()) continue;
    if (entry.is_extended())
      RETURN_IF_ERROR(read_logical(disk, entry.first, partitions));
    else
      RETURN_IF_ERROR(add(disk, i + 1, 0, entry, partitions));
  }
  std::sort(partitions.begin(), partitions.end(),
            [](const Partition& a, const Partition& b) { return a.number < b.number; });
  return partitions;
}

Result<void> check_overlaps(std::vector<Partition> partitions) {
  std::sort(partitions.begin(), partitions.end(),
            [](const Partition& a, const Partition& b) { return a.begin < b.begin; });
  for (size_t i = 1; i < partitions.size(); ++i)
    if (partitions[i].begin - partitions[i - 1].begin < partitions[i - 1].length)
      return doubt(fmt::format("its partitions {} and {} overlap", partitions[i - 1].number,
                               partitions[i].number));
  return {};
}

// A boot sector of a filesystem ends with the same two bytes as an MBR.
bool looks_like_mbr(const Fields& sector) {
  if (sector.be16(510) != 0x55AA) return false;
  bool is_used = false;
  for (size_t i = 0; i < 4; ++i) {
    const MbrEntry entry(sector, i);
    if (entry.status != 0 && entry.status != 0x80) return false;
    is_used = is_used || entry.is_used();
  }
  return is_used;
}

}  // namespace

Result<PartitionTable> read_partition_table(const ByteView& disk) {
  PartitionTable table;
  if (disk.size() < 2 * kMbrSector) return table;
  const uint64_t length = std::min<uint64_t>(disk.size(), 4096 + 512);
  ASSIGN_OR_RETURN(const Block block, disk.block(0, length));
  const Fields start = block.fields();
  for (const uint32_t sector : {512u, 4096u}) {
    if (!start.has(sector, "EFI PART")) continue;
    table.kind = PartitionTable::Kind::kGpt;
    table.sector = sector;
    ASSIGN_OR_RETURN(table.partitions, read_gpt(disk, sector));
    RETURN_IF_ERROR(check_overlaps(table.partitions));
    return table;
  }
  if (!looks_like_mbr(start)) return table;
  for (size_t i = 0; i < 4; ++i)
    if (MbrEntry(start, i).type == kProtective)
      return doubt("its MBR says that there is a GPT, and there is none");
  table.kind = PartitionTable::Kind::kMbr;
  ASSIGN_OR_RETURN(table.partitions, read_mbr(disk, start));
  RETURN_IF_ERROR(check_overlaps(table.partitions));
  return table;
}

}  // namespace guest
