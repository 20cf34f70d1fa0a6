#include "guest/filesystem/xfs_log.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "base/rounding.h"
#include "guest/reading/reading.h"

namespace vc::guest {

namespace {

constexpr uint64_t kSector = 512;
constexpr uint32_t kRecordMagic = 0xFEEDBABE;
// Longest record, in sectors: a record of 256 KiB with all of its headers is shorter.
constexpr uint64_t kLongestRecord = 1100;
// Bytes of a record per header.
constexpr uint32_t kPerHeader = 32768;
constexpr uint8_t kUnmount = 0x20;

class Log {
 public:
  Log(const ByteView& view, uint64_t at, uint64_t sectors)
      : view_(view), at_(at), sectors_(sectors) {}

  Result<void> check() const;

 private:
  // Returns the sectors from `from` on. Wraps around at the end of the log.
  Result<Block> sectors(uint64_t from, uint64_t count) const;
  Result<uint32_t> cycle(uint64_t sector) const;
  // Returns the place of the next record.
  Result<uint64_t> head() const;
  // Returns the last record that begins before `head`.
  Result<uint64_t> last_record(uint64_t head) const;

  const ByteView& view_;
  const uint64_t at_;
  const uint64_t sectors_;
};

Result<Block> Log::sectors(uint64_t from, uint64_t count) const {
  Block block(count * kSector);
  const uint64_t until_end = std::min(count, sectors_ - from);
  RETURN_IF_ERROR(view_.read(at_ + from * kSector, block.bytes().first(until_end * kSector)));
  RETURN_IF_ERROR(view_.read(at_, block.bytes().subspan(until_end * kSector)));
  return block;
}

Result<uint32_t> Log::cycle(uint64_t sector) const {
  ASSIGN_OR_RETURN(const Block block, sectors(sector, 1));
  const Fields it = block.fields();
  return it.be32(0) == kRecordMagic ? it.be32(4) : it.be32(0);
}

Result<uint64_t> Log::head() const {
  ASSIGN_OR_RETURN(const uint32_t first, cycle(0));
  ASSIGN_OR_RETURN(const uint32_t last, cycle(sectors_ - 1));
  if (first == 0) return doubt("its log is empty");
  if (first == last) return uint64_t{0};
  if (last != 0 && last != first - 1) return unclean("its log contradicts itself");
  uint64_t low = 0;              // has another cycle than `last`
  uint64_t high = sectors_ - 1;  // has that of `last`
  while (high - low > 1) {
    const uint64_t middle = low + (high - low) / 2;
    ASSIGN_OR_RETURN(const uint32_t here, cycle(middle));
    (here == last ? high : low) = middle;
  }
  return high;
}

Result<uint64_t> Log::last_record(uint64_t head) const {
  const uint64_t count = std::min(kLongestRecord, sectors_);
  const uint64_t from = (head + sectors_ - count) % sectors_;
  ASSIGN_OR_RETURN(const Block block, sectors(from, count));
  for (uint64_t i = count; i-- > 0;)
    if (block.fields().be32(i * kSector) == kRecordMagic) return (from + i) % sectors_;
  return unclean("its log has no record where the last should be");
}

Result<void> Log::check() const {
  if (sectors_ < 2) return doubt("its log is too short");
  ASSIGN_OR_RETURN(const uint64_t end, head());
  ASSIGN_OR_RETURN(const uint64_t begin, last_record(end));
  ASSIGN_OR_RETURN(const Block header, sectors(begin, 1));
  const Fields it = header.fields();
  const uint64_t length = divide_up(it.be32(12), kSector);
  const bool has_size = (it.be32(8) & 2) != 0;
  const uint64_t headers =
      has_size ? std::max<uint64_t>(divide_up(it.be32(320), kPerHeader), 1) : 1;
  if (length > sectors_ || headers > sectors_ || (begin + headers + length) % sectors_ != end)
    return unclean("its log does not end with a whole record");
  if (it.be32(40) != 1) return unclean("its log must be replayed");
  ASSIGN_OR_RETURN(const Block operation, sectors((begin + headers) % sectors_, 1));
  if ((operation.fields().u8(9) & kUnmount) == 0) return unclean("its log must be replayed");
  return {};
}

}  // namespace

Result<void> check_xfs_log(const ByteView& view, uint64_t at, uint64_t sectors) {
  return Log(view, at, sectors).check();
}

}  // namespace vc::guest
