#include "guest/filesystem/xfs_directory.h"

#include "base/rounding.h"
#include "guest/reading/checksums.h"
#include "guest/reading/reading.h"

namespace vc::guest {

namespace {

constexpr uint64_t kSector = 512;
constexpr size_t kChecksum = 4;
constexpr size_t kHeader = 64;     // of version 5
constexpr size_t kOldHeader = 16;  // of version 4
constexpr uint16_t kUnused = 0xFFFF;

Failure damaged() {
  return doubt("a directory of it is damaged");
}

// The entries [begin, end) of a block. The only block of a directory ends with an index of 8 bytes
// per entry.
struct Entries {
  size_t begin;
  size_t end;
};

Result<Entries> entries_of(const Fields& block, bool is_v5) {
  const size_t begin = is_v5 ? kHeader : kOldHeader;
  if (block.has(0, is_v5 ? "XDD3" : "XD2D")) return Entries{begin, block.size()};
  if (!block.has(0, is_v5 ? "XDB3" : "XD2B")) return damaged();
  const size_t tail = block.size() - 8;
  const uint64_t count = block.be32(tail);
  if (count > (tail - begin) / 8) return damaged();
  return Entries{begin, tail - count * 8};
}

}  // namespace

Result<std::optional<uint64_t>> find_in_xfs_inode(const Fields& entries, std::string_view name,
                                                  const XfsSuperblock& super) {
  const bool is_wide = entries.u8(1) != 0;
  const size_t number = is_wide ? 8 : 4;
  size_t at = 2 + number;
  for (unsigned i = 0; i < entries.u8(0); ++i) {
    const size_t length = entries.u8(at);
    const size_t place = at + 3 + length + (super.has_types ? 1 : 0);
    if (length == 0 || place + number > entries.size()) return damaged();
    if (entries.text(at + 3, length) == name)
      return std::optional(is_wide ? entries.be64(place) : uint64_t{entries.be32(place)});
    at = place + number;
  }
  return std::optional<uint64_t>();
}

Result<std::optional<uint64_t>> find_in_xfs_block(const Fields& block, std::string_view name,
                                                  const XfsSuperblock& super, uint64_t owner,
                                                  uint64_t at) {
  ASSIGN_OR_RETURN(const Entries entries, entries_of(block, super.is_v5));
  if (super.is_v5 &&
      (!is_right_checksum(block.le32(kChecksum), crc32c_without(block.bytes(), kChecksum)) ||
       block.be64(8) != at / kSector || block.text(24, 16) != super.metadata_uuid ||
       block.be64(40) != owner))
    return damaged();
  for (size_t here = entries.begin; here < entries.end;) {
    const bool is_unused = block.be16(here) == kUnused;
    const size_t name_length = block.u8(here + 8);
    // An entry is: inode number, length of the name, name, possibly a type, and its own offset.
    const size_t length = is_unused ? block.be16(here + 2)
                                    : round_up(9 + name_length + (super.has_types ? 1 : 0) + 2, 8);
    if (length == 0 || length % 8 != 0 || length > entries.end - here ||
        block.be16(here + length - 2) != here)
      return damaged();
    if (!is_unused && block.text(here + 9, name_length) == name)
      return std::optional(block.be64(here));
    here += length;
  }
  return std::optional<uint64_t>();
}

}  // namespace vc::guest
