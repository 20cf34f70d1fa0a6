#include "appliance/partition_table.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>
#include <vector>

namespace vc::appliance {

namespace {

constexpr std::array<uint64_t, 2> kSectorSizes{512, 4096};
// Largest partition table that is accepted, bytes.
constexpr uint64_t kLargestTable = 1 << 20;
constexpr uint8_t kProtective = 0xee;
// Bytes at the start of a partition that hold filesystem signatures.
constexpr uint64_t kSignatures = 4096;

// Decodes a little-endian number: both kinds of tables use this order.
template <typename T>
T number(std::span<const std::byte> bytes, size_t at) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i)
    value = static_cast<T>(
        value | static_cast<T>(static_cast<T>(std::to_integer<uint8_t>(bytes[at + i])) << 8 * i));
  return value;
}

bool has_text(std::span<const std::byte> bytes, size_t at, std::string_view text) {
  return std::memcmp(bytes.data() + at, text.data(), text.size()) == 0;
}

uint32_t checksum(std::span<const std::byte> bytes) {
  return static_cast<uint32_t>(
      ::crc32(0, reinterpret_cast<const Bytef*>(bytes.data()), static_cast<uInt>(bytes.size())));
}

// A GPT header and its table.
struct Gpt {
  bool there = false;   // has the signature
  std::string problem;  // why it is invalid; empty: valid
  uint64_t other = 0;   // sector of the other header

  bool good() const { return there && problem.empty(); }
};

class Finder {
 public:
  Finder(uint64_t size, const ReadDisk& read) : size_(size), read_(read) {}

  Result<PartitionTable> run() {
    PartitionTable table;
    // A smaller disk has no space for partitions.
    if (size_ < 4 * kSectorSizes.back()) return table;
    RETURN_IF_ERROR(read_(0, mbr_));
    std::array<Gpt, 2> primary;
    for (size_t i = 0; i < primary.size(); ++i) {
      ASSIGN_OR_RETURN(primary[i], read_gpt(kSectorSizes[i], 1));
    }
    if (primary[0].good() || primary[1].good()) return choose(primary);
    for (size_t i = 0; i < primary.size(); ++i)
      if (primary[i].there && has_partition(kProtective))
        return damaged(kSectorSizes[i], primary[i]);
    if (has_partition(kProtective)) {
      for (const uint64_t sector_size : kSectorSizes) {
        ASSIGN_OR_RETURN(const Gpt backup, read_gpt(sector_size, size_ / sector_size - 1));
        if (backup.good())
          return damaged(sector_size, {true, "has no header at the start of the disk", 0});
      }
      return damaged(512,
                     {true, "has no header, neither at the start nor at the end of the disk", 0});
    }
    if (!has_partitions()) return table;
    table.kind = PartitionTable::Kind::kMbr;
    ASSIGN_OR_RETURN(table.sector_size, sector_size_of_mbr());
    return table;
  }

 private:
  struct Entry {
    uint8_t type;
    uint64_t start;  // sectors
    uint64_t length;
  };
  Entry entry(size_t index) const {
    const size_t at = 446 + 16 * index;
    return {number<uint8_t>(mbr_, at + 4), number<uint32_t>(mbr_, at + 8),
            number<uint32_t>(mbr_, at + 12)};
  }
  bool is_mbr() const { return number<uint16_t>(mbr_, 510) == 0xaa55; }
  bool has_partition(uint8_t type) const {
    for (size_t i = 0; i < 4 && is_mbr(); ++i)
      if (entry(i).type == type) return true;
    return false;
  }
  // The signature alone is not enough, since boot sectors of filesystems have it, too.
  bool has_partitions() const {
    bool any = false;
    for (size_t i = 0; i < 4; ++i) {
      const auto flag = std::to_integer<uint8_t>(mbr_[446 + 16 * i]);
      if (flag != 0 && flag != 0x80) return false;
      any = any || (entry(i).type != 0 && entry(i).start != 0 && entry(i).length != 0);
    }
    return is_mbr() && any;
  }

  Result<Gpt> read_gpt(uint64_t sector_size, uint64_t sector) const {
    Gpt gpt;
    std::vector<std::byte> header(sector_size);
    RETURN_IF_ERROR(read_(sector * sector_size, header));
    if (!has_text(header, 0, "EFI PART")) return gpt;
    gpt.there = true;
    const auto length = number<uint32_t>(header, 12);
    if (length < 92 || length > sector_size) {
      gpt.problem = "has a header with an invalid length";
      return gpt;
    }
    const auto sum = number<uint32_t>(header, 16);
    std::vector<std::byte> summed(header.begin(), header.begin() + length);
    std::fill_n(summed.begin() + 16, 4, std::byte{0});
    gpt.other = number<uint64_t>(header, 32);
    const auto table_at = number<uint64_t>(header, 72);
    const uint64_t table_size =
        uint64_t{number<uint32_t>(header, 80)} * number<uint32_t>(header, 84);
    const uint64_t sectors = size_ / sector_size;
    if (checksum(summed) != sum) {
      gpt.problem = "has a header whose checksum is wrong";
    } else if (number<uint64_t>(header, 24) != sector) {
      gpt.problem = "has a header that belongs to another sector";
    } else if (number<uint64_t>(header, 48) >= sectors) {
      gpt.problem = "belongs to a larger disk";
    } else if (table_size > kLargestTable || table_at >= sectors ||
               table_size > size_ - table_at * sector_size) {
      gpt.problem = "has partitions outside of the disk";
    } else {
      std::vector<std::byte> table(table_size);
      RETURN_IF_ERROR(read_(table_at * sector_size, table));
      if (checksum(table) != number<uint32_t>(header, 88))
        gpt.problem = "has a list of partitions whose checksum is wrong";
    }
    return gpt;
  }

  // At least one of `primary` must be valid.
  Result<PartitionTable> choose(const std::array<Gpt, 2>& primary) const {
    PartitionTable table;
    table.kind = PartitionTable::Kind::kGpt;
    size_t chosen = primary[0].good() ? 0 : 1;
    // Both are valid if the image was made for both sector sizes, or if one table was written after
    // the other. The protective MBR has the length in sectors of one size, and the backup is at the
    // end of the disk.
    if (primary[0].good() && primary[1].good() && !fits(primary[0], 512) && fits(primary[1], 4096))
      chosen = 1;
    table.sector_size = kSectorSizes[chosen];
    if (has_partition(kProtective)) return table;
    // Linux uses the MBR in this case.
    if (has_partitions()) {
      table.kind = PartitionTable::Kind::kMbr;
      ASSIGN_OR_RETURN(table.sector_size, sector_size_of_mbr());
      return table;
    }
    return damaged(table.sector_size, {true, "has no protective MBR before it", 0});
  }

  bool fits(const Gpt& gpt, uint64_t sector_size) const {
    const uint64_t last = size_ / sector_size - 1;
    for (size_t i = 0; i < 4; ++i)
      if (entry(i).type == kProtective && entry(i).length == std::min<uint64_t>(last, UINT32_MAX))
        return true;
    return gpt.other == last;
  }

  Result<PartitionTable> damaged(uint64_t sector_size, const Gpt& primary) const {
    PartitionTable table;
    table.kind = PartitionTable::Kind::kDamagedGpt;
    table.sector_size = sector_size;
    ASSIGN_OR_RETURN(const Gpt backup, read_gpt(sector_size, size_ / sector_size - 1));
    table.problem = fmt::format("its partition table (GPT, sectors of {} bytes) {}{}", sector_size,
                                primary.problem,
                                backup.good() ? "; the backup at the end of the disk is valid: let "
                                                "the guest or gdisk restore it (gdisk: r, b, w)"
                                              : ": let the guest or gdisk repair it");
    return table;
  }

  Result<uint64_t> sector_size_of_mbr() const {
    for (size_t i = 0; i < 4; ++i) {
      const Entry it = entry(i);
      if (it.type == 0 || it.start == 0) continue;
      for (const uint64_t sector_size : kSectorSizes) {
        ASSIGN_OR_RETURN(const bool found, has_filesystem(it.start * sector_size));
        if (found) return sector_size;
      }
    }
    return kSectorSizes.front();
  }

  // Checks the filesystems that are likely on a guest's first partition.
  Result<bool> has_filesystem(uint64_t at) const {
    if (at > size_ || size_ - at < kSignatures) return false;
    std::array<std::byte, kSignatures> bytes;
    RETURN_IF_ERROR(read_(at, bytes));
    const auto jump = std::to_integer<uint8_t>(bytes[0]);
    return ((jump == 0xeb || jump == 0xe9) && number<uint16_t>(bytes, 510) == 0xaa55) ||
           number<uint16_t>(bytes, 1024 + 56) == 0xef53 || has_text(bytes, 0, "XFSB") ||
           has_text(bytes, 0, "LUKS\xba\xbe") || has_text(bytes, 512, "LABELONE") ||
           has_text(bytes, kSignatures - 10, "SWAPSPACE2");
  }

  const uint64_t size_;
  const ReadDisk& read_;
  std::array<std::byte, 512> mbr_{};
};

}  // namespace

const char* to_string(PartitionTable::Kind kind) {
  switch (kind) {
    case PartitionTable::Kind::kMbr:
      return "mbr";
    case PartitionTable::Kind::kGpt:
      return "gpt";
    case PartitionTable::Kind::kDamagedGpt:
      return "damaged-gpt";
    case PartitionTable::Kind::kNone:
      break;
  }
  return "none";
}

Result<PartitionTable> find_partition_table(uint64_t size, const ReadDisk& read) {
  return Finder(size, read).run();
}

}  // namespace vc::appliance
