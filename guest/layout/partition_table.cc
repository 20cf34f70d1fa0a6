#include "guest/layout/partition_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>
#include <string_view>
#include <utility>

#include "guest/reading/checksums.h"
#include "guest/reading/reading.h"

namespace vc::guest {

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
    KnownType{"21686148-6449-6e6f-744e-656564454649", "it holds a boot loader"},
};

// Partition types of other systems. A signature that we know may be left over in such a partition.
constexpr const char* kBsd = "its type is one of BSD";
constexpr const char* kRaid = "its type is that of a RAID member";
constexpr const char* kVmware = "its type is one of VMware";
constexpr const char* kSolaris = "its type is one of Solaris and ZFS";
constexpr std::array kOthers{
    KnownType{"a19d880f-05fc-4d3b-a006-743f0f84911e", kRaid},
    KnownType{"ca7d7ccb-63ed-4c53-861c-1742536059cc", "its type is that of LUKS"},
    KnownType{"7ffec5c9-2d00-49b7-8941-3ea10a5586b7", "its type is that of dm-crypt"},
    KnownType{"516e7cb6-6ecf-11d6-8ff8-00022d09712b", kBsd},
    KnownType{"516e7cb8-6ecf-11d6-8ff8-00022d09712b", kBsd},
    KnownType{"516e7cba-6ecf-11d6-8ff8-00022d09712b", kBsd},
    KnownType{"aa31e02a-400f-11db-9590-000c2911d1b8", kVmware},
    KnownType{"9d275380-40ad-11db-bf97-000c2911d1b8", kVmware},
};
constexpr std::string_view kSolarisFamily = "-1dd2-11b2-99a6-080020736631";

const char* other_owner(std::string_view guid) {
  if (guid.ends_with(kSolarisFamily)) return kSolaris;
  const auto* const found = std::find_if(kOthers.begin(), kOthers.end(),
                                         [&](const KnownType& it) { return it.guid == guid; });
  return found == kOthers.end() ? "" : found->why;
}

const char* other_owner(uint8_t type) {
  switch (type) {
    case 0xA5:
    case 0xA6:
    case 0xA9:
      return kBsd;
    case 0xBF:
      return kSolaris;
    case 0xFB:
      return kVmware;
    case 0xFD:
      return kRaid;
    default:
      return "";
  }
}

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
  // The checksum covers the header with zeros in the checksum field.
  Block zeroed(header.part(0, length));
  std::fill_n(zeroed.bytes().begin() + 16, 4, std::byte{0});
  if (!is_right_checksum(header.le32(16), crc32(zeroed.bytes())))
    return doubt("the checksum of its GPT is wrong");
  const uint64_t at = header.le64(72);
  const uint64_t count = header.le32(80);
  const uint64_t size = header.le32(84);
  if (header.le64(24) != 1 || count > kMostEntries || size < 128 || size > 4096 ||
      !is_power_of_two(size) || at > disk.size() / sector)
    return doubt("its GPT is damaged");
  ASSIGN_OR_RETURN(const Block entries, disk.block(at * sector, count * size));
  if (!is_right_checksum(header.le32(88), crc32(entries.bytes())))
    return doubt("the checksum of its GPT's entries is wrong");
  std::vector<Partition> partitions;
  for (uint64_t i = 0; i < count; ++i) {
    const Fields entry = entries.fields().part(i * size, size);
    if (entry.part(0, 16).all(0)) continue;
    const uint64_t first = entry.le64(32);
    const uint64_t last = entry.le64(40);
    if (first > last || last >= disk.size() / sector)
      return doubt(fmt::format("entry {} of its GPT is outside of the disk", i + 1));
    // First and last sector for partitions, according to the header.
    if (first < header.le64(40) || last > header.le64(48))
      return doubt(fmt::format("entry {} of its GPT is outside of the usable sectors", i + 1));
    const std::string type = guid_text(entry.part(0, 16));
    partitions.push_back({static_cast<unsigned>(i + 1), first * sector, (last - first + 1) * sector,
                          why_left_alone(type), other_owner(type)});
  }
  return partitions;
}

// An entry of an MBR or EBR.
struct MbrEntry {
  uint8_t status;
  uint8_t type;
  uint64_t first;  // sectors
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
                 entry.type == kLdm ? "Windows's dynamic disks use it" : "",
                 other_owner(entry.type)});
  return {};
}

// Reads the logical partitions. Each has a sector of its own (EBR) that describes it and leads to
// the next one. Adds these sectors to `chain`.
Result<void> read_logical(const ByteView& disk, uint64_t extended, std::vector<Partition>& out,
                          std::vector<uint64_t>& chain) {
  std::set<uint64_t> seen;
  for (uint64_t at = extended;;) {
    if (!seen.insert(at).second || seen.size() > kMostLogical || at >= disk.size() / kMbrSector)
      return doubt("the chain of its logical partitions is damaged");
    chain.push_back(at * kMbrSector);
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

Result<void> check_chain(const std::vector<uint64_t>& chain,
                         const std::vector<Partition>& partitions) {
  for (const Partition& partition : partitions)
    for (const uint64_t at : chain)
      if (at >= partition.begin && at - partition.begin < partition.length)
        return doubt(fmt::format("its table of logical partitions is inside of partition {}",
                                 partition.number));
  return {};
}

Result<std::vector<Partition>> read_mbr(const ByteView& disk, const Fields& sector) {
  std::vector<Partition> partitions;
  std::vector<uint64_t> chain;
  for (unsigned i = 0; i < 4; ++i) {
    const MbrEntry entry(sector, i);
    if (!entry.is_used()) continue;
    if (entry.is_extended())
      RETURN_IF_ERROR(read_logical(disk, entry.first, partitions, chain));
    else
      RETURN_IF_ERROR(add(disk, i + 1, 0, entry, partitions));
  }
  RETURN_IF_ERROR(check_chain(chain, partitions));
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

// Same rule as Linux (block/partitions/efi.c): a GPT is valid only with a protective MBR. Other
// entries of the MBR must match partitions of the GPT.
Result<void> check_protective(const Fields& start, const PartitionTable& table) {
  bool is_protective = false;
  for (size_t i = 0; i < 4; ++i) {
    const MbrEntry entry(start, i);
    is_protective = is_protective || (entry.type == kProtective && entry.first == 1);
    if (!entry.is_used() || entry.type == kProtective) continue;
    if (std::none_of(table.partitions.begin(), table.partitions.end(), [&](const Partition& it) {
          return it.begin == entry.first * table.sector && it.length == entry.count * table.sector;
        }))
      return doubt("its MBR has a partition that its GPT does not have");
  }
  if (start.be16(510) != 0x55AA || !is_protective)
    return doubt("it has a GPT, but no protective MBR: one of them is left over from earlier use");
  return {};
}

Result<PartitionTable> read_gpt_of(const ByteView& disk, const Fields& start, uint32_t sector) {
  PartitionTable table;
  table.kind = PartitionTable::Kind::kGpt;
  table.sector = sector;
  ASSIGN_OR_RETURN(table.partitions, read_gpt(disk, sector));
  RETURN_IF_ERROR(check_protective(start, table));
  RETURN_IF_ERROR(check_overlaps(table.partitions));
  return table;
}

bool has_gpt(const Fields& start, uint32_t sector) {
  return start.has(sector, "EFI PART");
}

}  // namespace

bool has_partition_table(const Fields& start) {
  return looks_like_mbr(start) || has_gpt(start, 512) || has_gpt(start, 4096);
}

Result<PartitionTable> read_partition_table(const ByteView& disk) {
  PartitionTable table;
  if (disk.size() < 2 * kMbrSector) return table;
  ASSIGN_OR_RETURN(const Block block, disk.block(0, std::min(disk.size(), kTableHead)));
  const Fields start = block.fields();
  if (has_gpt(start, 512) && has_gpt(start, 4096))
    return doubt("it has two GPTs, one for each sector size");
  for (const uint32_t sector : {512u, 4096u})
    if (has_gpt(start, sector)) return read_gpt_of(disk, start, sector);
  if (!looks_like_mbr(start)) return table;
  for (size_t i = 0; i < 4; ++i)
    if (MbrEntry(start, i).type == kProtective) return doubt("it has a protective MBR, but no GPT");
  table.kind = PartitionTable::Kind::kMbr;
  ASSIGN_OR_RETURN(table.partitions, read_mbr(disk, start));
  RETURN_IF_ERROR(check_overlaps(table.partitions));
  return table;
}

}  // namespace vc::guest
