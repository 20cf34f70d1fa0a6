#include "guest/filesystem/ntfs/ntfs_volume.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "base/rounding.h"

namespace vc::guest {

namespace {

// One fixup for each 512 bytes, for any sector size.
constexpr size_t kFixupUnit = 512;
constexpr uint64_t kLargestCluster = 2 << 20;
// Limits one read; callers read metadata files in pieces.
constexpr uint64_t kLongestRead = 1 << 20;
constexpr uint64_t kLongestHole = uint64_t{1} << 40;  // clusters
constexpr uint32_t kEndOfAttributes = 0xFFFFFFFF;

// Decodes a size: in clusters, or as a negative power of two in bytes.
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

// Fields of a record: its sequence number, and the reference to the first record of its file.
constexpr size_t kSequence = 0x10;
constexpr size_t kFirstRecord = 0x20;
// Longest attribute list that Windows makes, bytes.
constexpr uint64_t kLongestList = 256 << 10;
// More runs than a file with the longest list can have, with records of 1 KiB.
constexpr size_t kMostRuns = 1 << 20;

Failure damaged_attributes() {
  return doubt("the attributes of a record are damaged");
}

bool has_text(const Fields& text, const std::string& name) {
  if (text.size() != 2 * name.size()) return false;
  for (size_t i = 0; i < name.size(); ++i)
    if (text.le16(2 * i) != static_cast<uint8_t>(name[i])) return false;
  return true;
}

bool has_name(const Fields& attribute, const std::string& name) {
  return has_text(attribute.part(attribute.le16(10), size_t{attribute.u8(9)} * 2), name);
}

// Returns all attributes of a record.
Result<std::vector<Fields>> attributes_of(const Fields& record) {
  const uint64_t end = std::min<uint64_t>(record.le32(0x18), record.size());
  std::vector<Fields> all;
  for (uint64_t at = record.le16(0x14); at + 8 <= end && record.le32(at) != kEndOfAttributes;) {
    const uint32_t length = record.le32(at + 4);
    if (length < 24 || length % 8 != 0 || length > end - at) return damaged_attributes();
    all.push_back(record.part(at, length));
    at += length;
  }
  return all;
}

// Returns the first cluster (VCN) of a part of an attribute.
uint64_t first_cluster(const Fields& attribute) {
  return attribute.u8(8) == 0 ? 0 : attribute.le64(0x10);
}

uint64_t end_of(const std::vector<NtfsRun>& runs) {
  return runs.empty() ? 0 : runs.back().vcn + runs.back().length;
}

// A reference to a record, with its sequence number.
struct NtfsReference {
  uint64_t value;

  uint64_t record() const { return value & 0xFFFFFFFFFFFF; }
  uint16_t sequence() const { return static_cast<uint16_t>(value >> 48); }
};

// An entry of an attribute list.
struct ListEntry {
  uint32_t type;
  Fields name;
  uint64_t vcn;
  uint64_t reference;
};

Result<std::vector<ListEntry>> decode_list(const Fields& list) {
  constexpr size_t kShortest = 26;
  std::vector<ListEntry> entries;
  for (size_t at = 0; at < list.size();) {
    const size_t length = list.le16(at + 4);
    if (length < kShortest || length % 8 != 0 || length > list.size() - at)
      return damaged_attributes();
    const Fields it = list.part(at, length);
    entries.push_back(
        {it.le32(0), it.part(it.u8(7), size_t{it.u8(6)} * 2), it.le64(8), it.le64(16)});
    at += length;
  }
  return entries;
}

// Returns the reference of `first`, the first record of a file. Standard information is always in
// that record.
Result<uint64_t> own_reference(const std::vector<ListEntry>& entries, const Fields& first) {
  const auto own = std::find_if(entries.begin(), entries.end(), [](const ListEntry& it) {
    return it.type == static_cast<uint32_t>(NtfsAttributeType::kStandardInformation);
  });
  if (own == entries.end() || NtfsReference{own->reference}.sequence() != first.le16(kSequence))
    return damaged_attributes();
  return own->reference;
}

}  // namespace

Result<NtfsVolume> NtfsVolume::open(const ByteView& view) {
  ASSIGN_OR_RETURN(const Block boot, view.block(0, 512));
  NtfsVolume volume(view);
  RETURN_IF_ERROR(volume.read_boot(boot.fields()));
  // Record 0 describes the master file table itself. Its first part leads to the records that
  // describe the other parts, if there are any.
  ASSIGN_OR_RETURN(const Block own, volume.record(NtfsRecord::kMft));
  ASSIGN_OR_RETURN(const auto start, volume.find_within(own, NtfsAttributeType::kData, ""));
  if (!start) return doubt("its master file table is damaged");
  ASSIGN_OR_RETURN(const NtfsAttribute first, volume.decode(*start));
  if (first.is_resident) return doubt("its master file table is damaged");
  volume.mft_ = first;
  ASSIGN_OR_RETURN(volume.mft_, volume.get(NtfsRecord::kMft, NtfsAttributeType::kData));
  return volume;
}

Result<void> NtfsVolume::read_boot(const Fields& boot) {
  const auto impossible = [] { return doubt("its geometry is invalid"); };
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
  mft_.is_resident = false;
  mft_.runs = {{0, table, length}};
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
    if (it.le16(end) != it.le16(at))
      return doubt("a record of its metadata was written only in part");
    std::memcpy(bytes.data() + end, bytes.data() + at + 2 * i, 2);
  }
  return {};
}

Result<Block> NtfsVolume::record(uint64_t number) const {
  if (number > UINT64_MAX / record_size_) return doubt("its metadata refer to an invalid record");
  ASSIGN_OR_RETURN(Block block, read(mft_, number * record_size_, record_size_));
  RETURN_IF_ERROR(undo_fixups(block, "FILE"));
  if ((block.fields().le16(0x16) & 1) == 0)
    return doubt(fmt::format("its record {} is not in use", number));
  return block;
}

Result<std::optional<Fields>> NtfsVolume::find_within(const Block& record, NtfsAttributeType type,
                                                      const std::string& name, uint64_t vcn) const {
  ASSIGN_OR_RETURN(const auto all, attributes_of(record.fields()));
  const auto found = std::find_if(all.begin(), all.end(), [&](const Fields& it) {
    return it.le32(0) == static_cast<uint32_t>(type) && has_name(it, name) &&
           vcn == first_cluster(it);
  });
  return found == all.end() ? std::nullopt : std::optional(*found);
}

Result<void> NtfsVolume::add_runs(const Block& record, std::vector<NtfsRun>& runs) const {
  ASSIGN_OR_RETURN(const auto all, attributes_of(record.fields()));
  for (const Fields& attribute : all) {
    if (attribute.u8(8) == 0) continue;
    ASSIGN_OR_RETURN(const auto more,
                     decode_runs(attribute.part(attribute.le16(0x20)), first_cluster(attribute)));
    if (runs.size() + more.size() > kMostRuns) return damaged_attributes();
    runs.insert(runs.end(), more.begin(), more.end());
  }
  return {};
}

Result<std::vector<NtfsRun>> NtfsVolume::runs_of(const Block& record) const {
  std::vector<NtfsRun> runs;
  RETURN_IF_ERROR(add_runs(record, runs));
  ASSIGN_OR_RETURN(const auto list, list_of(record));
  if (!list) return runs;
  ASSIGN_OR_RETURN(const auto entries, decode_list(list->fields()));
  ASSIGN_OR_RETURN(const uint64_t own, own_reference(entries, record.fields()));
  std::set<uint64_t> further;
  for (const ListEntry& entry : entries)
    if (entry.reference != own) further.insert(entry.reference);
  for (const uint64_t reference : further) {
    ASSIGN_OR_RETURN(const Block part, further_record(reference, own));
    RETURN_IF_ERROR(add_runs(part, runs));
  }
  return runs;
}

Result<std::optional<Block>> NtfsVolume::list_of(const Block& record) const {
  ASSIGN_OR_RETURN(const auto found, find_within(record, NtfsAttributeType::kAttributeList, ""));
  if (!found) return std::optional<Block>();
  ASSIGN_OR_RETURN(const NtfsAttribute list, decode(*found));
  if (list.is_compressed_or_sparse() || list.size > kLongestList || list.initialized < list.size)
    return damaged_attributes();
  ASSIGN_OR_RETURN(Block content, read(list, 0, list.size));
  return std::optional(std::move(content));
}

Result<Block> NtfsVolume::further_record(uint64_t reference, uint64_t first) const {
  const NtfsReference it{reference};
  ASSIGN_OR_RETURN(Block record, this->record(it.record()));
  if (record.fields().le16(kSequence) != it.sequence() ||
      record.fields().le64(kFirstRecord) != first)
    return damaged_attributes();
  return record;
}

Result<std::optional<NtfsAttribute>> NtfsVolume::find(const Block& record, NtfsAttributeType type,
                                                      const std::string& name) const {
  ASSIGN_OR_RETURN(const auto list, list_of(record));
  if (list) return find_in_list(record, *list, type, name);
  ASSIGN_OR_RETURN(const auto found, find_within(record, type, name));
  if (!found) return std::optional<NtfsAttribute>();
  return decode(*found).map([](NtfsAttribute it) { return std::optional(std::move(it)); });
}

// The list has an entry for each attribute. An attribute whose runs are in several records has an
// entry for each part, in the order of clusters.
Result<std::optional<NtfsAttribute>> NtfsVolume::find_in_list(const Block& record,
                                                              const Block& list,
                                                              NtfsAttributeType type,
                                                              const std::string& name) const {
  ASSIGN_OR_RETURN(const auto entries, decode_list(list.fields()));
  ASSIGN_OR_RETURN(const uint64_t own, own_reference(entries, record.fields()));
  std::optional<NtfsAttribute> found;
  for (const ListEntry& entry : entries) {
    if (entry.type != static_cast<uint32_t>(type) || !has_text(entry.name, name)) continue;
    // Several resident attributes may have the same type and name: the first one counts.
    if (found && found->is_resident) break;
    const uint64_t vcn = found ? end_of(found->runs) : 0;
    if (entry.vcn != vcn) return damaged_attributes();
    Block from = record;
    if (entry.reference != own) {
      ASSIGN_OR_RETURN(from, further_record(entry.reference, own));
    }
    ASSIGN_OR_RETURN(const auto part, find_within(from, type, name, vcn));
    if (!part) return damaged_attributes();
    ASSIGN_OR_RETURN(NtfsAttribute more, decode(*part, vcn));
    if (!found) {
      found = std::move(more);
      continue;
    }
    if (more.is_resident || more.flags != found->flags || more.runs.empty() ||
        found->runs.size() + more.runs.size() > kMostRuns)
      return damaged_attributes();
    found->runs.insert(found->runs.end(), more.runs.begin(), more.runs.end());
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

Result<NtfsAttribute> NtfsVolume::decode(const Fields& attribute, uint64_t vcn) const {
  NtfsAttribute result;
  result.is_resident = attribute.u8(8) == 0;
  result.flags = attribute.le16(12);
  if (result.is_resident) {
    const uint64_t at = attribute.le16(0x14);
    result.size = attribute.le32(0x10);
    if (at > attribute.size() || result.size > attribute.size() - at) return damaged_attributes();
    result.value = Block(attribute.part(at, result.size));
    result.initialized = result.size;
    return result;
  }
  // Later parts have no sizes.
  if (vcn == 0) {
    result.size = attribute.le64(0x30);
    result.initialized = attribute.le64(0x38);
  }
  ASSIGN_OR_RETURN(result.runs, decode_runs(attribute.part(attribute.le16(0x20)), vcn));
  return result;
}

// A run is a byte with the lengths of two numbers, followed by these numbers: the clusters of the
// run, and its distance from the last run's place. Without the second number, the run is a hole.
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
    // A hole may be longer than the volume.
    if (length <= 0 || static_cast<uint64_t>(length) > (for_place > 0 ? clusters_ : kLongestHole) ||
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
        std::partition_point(attribute.runs.begin(), attribute.runs.end(),
                             [vcn](const NtfsRun& it) { return it.vcn + it.length <= vcn; });
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
