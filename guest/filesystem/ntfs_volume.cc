#include "guest/filesystem/ntfs_volume.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace vc::guest {

namespace {

// Fixups are one for each 512 bytes, whatever the sector is.
constexpr size_t kFixupUnit = 512;
constexpr uint64_t kLargestCluster = 2 << 20;
// Callers read files of metadata in pieces.
constexpr uint64_t kLongestRead = 1 << 20;
constexpr uint32_t kEndOfAttributes = 0xFFFFFFFF;

// A size in clusters, or as a negative power of two in bytes.
uint64_t size_of(int8_t code, uint64_t cluster) {
  if (code > 0) return static_cast<uint64_t>(code) * cluster;
  return code > -32 ? uint64_t{1} << -code : 0;
}

int64_t signed_number(const Fields& bytes, size_t at, unsigned length) {
  uint64_t value = 0;
  for (unsigned i = 0; i < length; ++i) value |= uint64_t{bytes.u8(at + i)} << (8 * i);
  if (length > 0 && length < 8 && (value >> (8 * length - 1) & 1) != 0)
    value |= ~uint64_t{0} << (8 * length);
  return static_cast<int64_t>(value);
}

bool has_name(const Fields& attribute, const std::string& name) {
  const size_t length = attribute.u8(9);
  if (length != name.size()) return false;
  for (size_t i = 0; i < length; ++i)
    if (attribute.le16(attribute.le16(10) + 2 * i) != static_cast<uint8_t>(name[i])) return false;
  return true;
}

}  // namespace

Result<NtfsVolume> NtfsVolume::open(const ByteView& view) {
  ASSIGN_OR_RETURN(const Block boot, view.block(0, 512));
  NtfsVolume volume(view);
  RETURN_IF_ERROR(volume.read_boot(boot.fields()));
  // The table's own record, which begins it, tells where the rest of the table is.
  ASSIGN_OR_RETURN(const NtfsAttribute table,
                   volume.get(NtfsRecord::kMft, NtfsAttributeType::kData));
  if (table.is_resident) return doubt("its master file table is damaged");
  volume.mft_ = table.runs;
  return volume;
}

Result<void> NtfsVolume::read_boot(const Fields& boot) {
  const auto impossible = [] { return doubt("its geometry is not possible"); };
  const uint64_t sector = boot.le16(0x0B);
  uint64_t per_cluster = boot.u8(0x0D);
  if (per_cluster > 128) per_cluster = uint64_t{1} << std::min<uint64_t>(256 - per_cluster, 63);
  if (!is_power_of_two(sector) || sector < 256 || sector > 4096 || !is_power_of_two(per_cluster) ||
      per_cluster > kLargestCluster / sector)
    return impossible();
  cluster_ = sector * per_cluster;
  const uint64_t sectors = boot.le64(0x28);
  if (sectors > view_->size() / sector) return doubt("it is larger than its partition");
  clusters_ = sectors / per_cluster;
  record_size_ = size_of(static_cast<int8_t>(boot.u8(0x40)), cluster_);
  if (!is_power_of_two(record_size_) || record_size_ < kFixupUnit || record_size_ > 64 << 10)
    return impossible();
  serial_ = boot.le64(0x48);
  const uint64_t table = boot.le64(0x30);
  const uint64_t length = divide_up(record_size_, cluster_);
  if (table >= clusters_ || length > clusters_ - table) return impossible();
  mft_ = {{0, table, length}};
  return {};
}

Result<void> NtfsVolume::undo_fixups(Block& record, std::string_view magic) {
  const Fields it = record.fields();
  if (!it.has(0, magic)) return doubt("a record of its metadata is damaged");
  const size_t at = it.le16(4);
  const size_t count = it.le16(6);
  if (count != it.size() / kFixupUnit + 1 || at + 2 * count > kFixupUnit - 2)
    return doubt("a record of its metadata is damaged");
  const auto bytes = record.bytes();
  for (size_t i = 1; i < count; ++i) {
    const size_t end = i * kFixupUnit - 2;
    if (it.le16(end) != it.le16(at)) return doubt("a record of its metadata was written in part");
    std::memcpy(bytes.data() + end, bytes.data() + at + 2 * i, 2);
  }
  return {};
}

Result<Block> NtfsVolume::record(uint64_t number) const {
  NtfsAttribute table;
  table.is_resident = false;
  table.runs = mft_;
  if (number > UINT64_MAX / record_size_) return doubt("its metadata name an impossible record");
  ASSIGN_OR_RETURN(Block block, read(table, number * record_size_, record_size_));
  RETURN_IF_ERROR(undo_fixups(block, "FILE"));
  if ((block.fields().le16(0x16) & 1) == 0)
    return doubt(fmt::format("its record {} is not in use", number));
  return block;
}

Result<std::optional<NtfsAttribute>> NtfsVolume::find(const Block& record, NtfsAttributeType type,
                                                      const std::string& name) const {
  const Fields it = record.fields();
  const uint64_t end = std::min<uint64_t>(it.le32(0x18), it.size());
  std::optional<NtfsAttribute> found;
  for (uint64_t at = it.le16(0x14); at + 8 <= end;) {
    const uint32_t here = it.le32(at);
    const uint32_t length = it.le32(at + 4);
    if (here == kEndOfAttributes) break;
    if (length < 24 || length % 8 != 0 || length > end - at)
      return doubt("the attributes of a record are damaged");
    if (here == static_cast<uint32_t>(NtfsAttributeType::kAttributeList))
      return doubt("the attributes of a file of its metadata are spread over several records");
    const Fields attribute = it.part(at, length);
    if (here == static_cast<uint32_t>(type) && has_name(attribute, name) && !found) {
      ASSIGN_OR_RETURN(found, decode(attribute));
    }
    at += length;
  }
  return found;
}

Result<NtfsAttribute> NtfsVolume::get(NtfsRecord number, NtfsAttributeType type,
                                      const std::string& name) const {
  ASSIGN_OR_RETURN(const Block from, record(number));
  ASSIGN_OR_RETURN(auto found, find(from, type, name));
  if (!found)
    return doubt(fmt::format("record {} of its metadata lacks attribute {:#x}",
                             static_cast<uint64_t>(number), static_cast<uint32_t>(type)));
  return std::move(*found);
}

Result<NtfsAttribute> NtfsVolume::decode(const Fields& it) const {
  NtfsAttribute result;
  result.is_resident = it.u8(8) == 0;
  result.flags = it.le16(12);
  if (result.is_resident) {
    const uint64_t at = it.le16(0x14);
    result.size = it.le32(0x10);
    if (at > it.size() || result.size > it.size() - at)
      return doubt("the attributes of a record are damaged");
    result.value = Block(it.part(at, result.size));
    result.initialized = result.size;
    return result;
  }
  result.size = it.le64(0x30);
  result.initialized = it.le64(0x38);
  if (it.le64(0x10) != 0) return doubt("the attributes of a record are damaged");
  ASSIGN_OR_RETURN(result.runs, decode_runs(it.part(it.le16(0x20)), 0));
  return result;
}

// Each run is a byte with the lengths of two numbers, then these: how many clusters, and how far
// from the last run's place; without the second it is a hole.
Result<std::vector<NtfsRun>> NtfsVolume::decode_runs(const Fields& bytes, uint64_t vcn) const {
  const auto damaged = [] { return doubt("a list of clusters is damaged"); };
  std::vector<NtfsRun> runs;
  int64_t lcn = 0;
  for (size_t at = 0; at < bytes.size() && bytes.u8(at) != 0;) {
    const unsigned for_length = bytes.u8(at) & 15;
    const unsigned for_place = bytes.u8(at) >> 4;
    if (for_length == 0 || for_length > 8 || for_place > 8 ||
        at + 1 + for_length + for_place > bytes.size())
      return damaged();
    const int64_t length = signed_number(bytes, at + 1, for_length);
    if (length <= 0 || static_cast<uint64_t>(length) > clusters_ ||
        vcn + static_cast<uint64_t>(length) < vcn)
      return damaged();
    NtfsRun run{vcn, {}, static_cast<uint64_t>(length)};
    if (for_place > 0) {
      if (__builtin_add_overflow(lcn, signed_number(bytes, at + 1 + for_length, for_place), &lcn) ||
          lcn < 0 || static_cast<uint64_t>(lcn) > clusters_ - run.length)
        return damaged();
      run.lcn = static_cast<uint64_t>(lcn);
    }
    runs.push_back(run);
    vcn += run.length;
    at += 1 + for_length + for_place;
  }
  return runs;
}

Result<Block> NtfsVolume::read(const NtfsAttribute& attribute, uint64_t at, uint64_t length) const {
  if (attribute.is_resident) {
    if (at > attribute.size || length > attribute.size - at)
      return doubt("a file of its metadata is too short");
    return Block(attribute.value.fields().part(at, length));
  }
  if (length > kLongestRead) return doubt("a file of its metadata is too long");
  Block block(length);
  std::span<std::byte> to = block.bytes();
  while (!to.empty()) {
    const uint64_t vcn = at / cluster_;
    const auto run =
        std::find_if(attribute.runs.begin(), attribute.runs.end(),
                     [&](const NtfsRun& it) { return vcn >= it.vcn && vcn - it.vcn < it.length; });
    if (run == attribute.runs.end()) return doubt("a file of its metadata is too short");
    const uint64_t offset = at - run->vcn * cluster_;
    const uint64_t here = std::min<uint64_t>(to.size(), run->length * cluster_ - offset);
    if (run->lcn) RETURN_IF_ERROR(view_->read(*run->lcn * cluster_ + offset, to.first(here)));
    at += here;
    to = to.subspan(here);
  }
  return block;
}

}  // namespace vc::guest
