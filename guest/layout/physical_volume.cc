#include "guest/layout/physical_volume.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "guest/layout/lvm_text.h"
#include "guest/reading/checksums.h"

namespace vc::guest {

namespace {

constexpr uint64_t kSector = 512;
constexpr unsigned kLabelSectors = 4;  // one of the first sectors has the label
constexpr uint64_t kMetadataHeader = 512;
// Limits the text. LVM's default metadata area has 1 MiB, and holds the text twice. In memory, the
// text takes thirty times as much.
constexpr uint64_t kLongestText = 1 << 20;
constexpr size_t kMostAreas = 16;
constexpr std::string_view kMetadataMagic = " LVM2 x[5A%r0N*>";

// Segment types whose extents belong to other, hidden volumes.
constexpr std::array<std::string_view, 20> kOnOthers{
    "thin",  "thin-pool", "cache",      "cache-pool", "raid0",    "raid0_meta", "raid1",
    "raid4", "raid5",     "raid5_ls",   "raid6",      "raid6_zr", "raid10",     "mirror",
    "error", "zero",      "writecache", "vdo",        "vdo-pool", "integrity"};

Failure damaged() {
  return doubt("the metadata of its volume group are damaged");
}

bool is_label(const Fields& sector) {
  return sector.has(0, "LABELONE") && sector.has(24, "LVM2 001");
}

// Removes the dashes that a UUID has in the text.
std::string without_dashes(std::string id) {
  id.erase(std::remove(id.begin(), id.end(), '-'), id.end());
  return id;
}

struct Area {
  uint64_t at;      // bytes
  uint64_t length;  // bytes
};

struct Label {
  std::string id;
  std::vector<Area> metadata;
};

Result<Label> read_label(const ByteView& view) {
  ASSIGN_OR_RETURN(const Block block, view.block(0, kLabelSectors * kSector));
  for (unsigned number = 0; number < kLabelSectors; ++number) {
    const Fields it = block.fields().part(number * kSector, kSector);
    if (!is_label(it)) continue;
    if (it.le64(8) != number || !is_right_checksum(it.le32(16), crc32_lvm(it.bytes().subspan(20))))
      return doubt("its LVM label is damaged");
    const size_t header = it.le32(20);
    if (header > kSector - 40) return doubt("its LVM label is damaged");
    Label label;
    label.id = it.text(header, 32);
    // Reads two lists, of data areas and of metadata areas. Each ends with an empty entry.
    unsigned ended = 0;
    for (size_t at = header + 40; at + 16 <= kSector && ended < 2; at += 16) {
      const Area area{it.le64(at), it.le64(at + 8)};
      if (area.at == 0 && area.length == 0)
        ++ended;
      else if (ended == 1)
        label.metadata.push_back(area);
    }
    if (ended < 2 || label.metadata.size() > kMostAreas) return doubt("its LVM label is damaged");
    return label;
  }
  return doubt("it has no LVM label");
}

// Returns nullopt if the area holds no text.
Result<std::optional<std::string>> read_text(const ByteView& view, const Area& area) {
  using Text = std::optional<std::string>;
  ASSIGN_OR_RETURN(const Block block, view.block(area.at, kMetadataHeader));
  const Fields it = block.fields();
  if (!it.has(4, kMetadataMagic) || it.le32(20) != 1 ||
      !is_right_checksum(it.le32(0), crc32_lvm(it.bytes().subspan(4))) || it.le64(24) != area.at ||
      it.le64(32) != area.length)
    return damaged();
  const uint64_t at = it.le64(40);
  const uint64_t length = it.le64(48);
  constexpr uint32_t kIgnored = 1;
  if (at == 0 || (it.le32(60) & kIgnored) != 0) return Text();
  if (at < kMetadataHeader || at >= area.length || area.length < kMetadataHeader ||
      length > area.length - kMetadataHeader)
    return damaged();
  if (length > kLongestText)
    return doubt("the metadata of its volume group are too long to be read here");
  // The text may wrap around at the end of the area.
  const uint64_t until_end = std::min(length, area.length - at);
  Block bytes(length);
  RETURN_IF_ERROR(view.read(area.at + at, bytes.bytes().first(until_end)));
  RETURN_IF_ERROR(view.read(area.at + kMetadataHeader, bytes.bytes().subspan(until_end)));
  if (!is_right_checksum(it.le32(56), crc32_lvm(bytes.bytes()))) return damaged();
  std::string text(bytes.fields().text(0, length));
  text.resize(std::min(text.find('\0'), text.size()));
  return Text(std::move(text));
}

struct Group {
  std::string name;
  LvmSection section;
  uint64_t sequence = 0;
  uint64_t text_size = 0;  // bytes
};

Result<Group> read_group(const ByteView& view, const Label& label) {
  std::optional<Group> newest;
  for (const Area& area : label.metadata) {
    ASSIGN_OR_RETURN(const auto text, read_text(view, area));
    if (!text) continue;
    ASSIGN_OR_RETURN(const LvmSection all, LvmSection::parse(*text));
    const auto found =
        std::find_if(all.sections().begin(), all.sections().end(),
                     [](const auto& it) { return it.second.section("physical_volumes"); });
    if (found == all.sections().end()) return damaged();
    const auto sequence = found->second.number("seqno");
    if (!sequence) return damaged();
    if (newest && *sequence == newest->sequence && !(found->second == newest->section))
      return doubt("its two copies of the metadata of its volume group differ");
    if (!newest || *sequence > newest->sequence)
      newest = Group{found->first, found->second, *sequence, text->size()};
  }
  if (!newest) return doubt("it has no metadata of its volume group");
  return std::move(*newest);
}

bool has_flag(const LvmSection& section, const char* key, const std::string& flag) {
  const auto* const list = section.list(key);
  return list && std::find(list->begin(), list->end(), LvmSection::Scalar(flag)) != list->end();
}

class Layout {
 public:
  Layout(const Group& group, PhysicalVolume& out) : group_(group), out_(out) {}

  Result<void> read(const std::string& id, uint64_t size);

 private:
  Result<void> find_this(const std::string& id, uint64_t size);
  Result<LogicalVolume> read_volume(const std::string& name, const LvmSection& section);
  Result<std::optional<LvmSegment>> read_segment(const LvmSection& section);
  Result<LvmSegment> read_striped(const LvmSection& section);
  // Returns true if a segment lies directly on a physical volume, as during a pvmove.
  bool names_physical_volume(const LvmSection& section) const;
  void take(const LvmSegment& segment);
  Result<void> count_free();

  const Group& group_;
  PhysicalVolume& out_;
  std::set<std::string> in_snapshots_;  // origins, and volumes that snapshots write to
  Ranges::Builder used_;                // extents of this physical volume
  uint64_t used_count_ = 0;
  // State of the volume that is being read:
  std::string why_;
  bool is_known_ = true;
};

Result<void> Layout::read(const std::string& id, uint64_t size) {
  RETURN_IF_ERROR(find_this(id, size));
  if (const LvmSection* const volumes = group_.section.section("logical_volumes")) {
    for (const auto& [name, section] : volumes->sections()) {
      ASSIGN_OR_RETURN(LogicalVolume volume, read_volume(name, section));
      out_.volumes.push_back(std::move(volume));
    }
  }
  for (LogicalVolume& volume : out_.volumes)
    if (in_snapshots_.count(volume.name) != 0) {
      volume.left_alone = "it has or is an LVM snapshot, which would be lost";
      volume.is_known = true;
    }
  return count_free();
}

Result<void> Layout::find_this(const std::string& id, uint64_t size) {
  const auto extent_size = group_.section.number("extent_size");
  const LvmSection* const all = group_.section.section("physical_volumes");
  if (!extent_size || *extent_size == 0 || *extent_size > size / kSector || !all) return damaged();
  out_.group = group_.name;
  out_.group_id = group_.section.text("id").value_or("");
  out_.extent_size = *extent_size * kSector;
  for (const auto& [name, section] : all->sections()) {
    const auto other = section.text("id");
    if (!other) return damaged();
    out_.others[name] = *other;
    if (without_dashes(*other) != id) continue;
    const auto begin = section.number("pe_start");
    const auto count = section.number("pe_count");
    if (!begin || !count || *begin > size / kSector) return damaged();
    out_.name = name;
    out_.id = *other;
    out_.begin = *begin * kSector;
    out_.extents = *count;
    // Older versions of LVM store it in the status.
    out_.was_missing =
        has_flag(section, "flags", "MISSING") || has_flag(section, "status", "MISSING");
  }
  if (out_.name.empty()) return doubt("it is not in its volume group");
  if (out_.extents > (size - out_.begin) / out_.extent_size)
    return doubt("it is larger than its partition");
  return {};
}

Result<LogicalVolume> Layout::read_volume(const std::string& name, const LvmSection& section) {
  LogicalVolume volume;
  volume.name = name;
  volume.is_hidden = !has_flag(section, "status", "VISIBLE");
  why_.clear();
  is_known_ = true;
  uint64_t count = 0;
  for (const auto& [key, inner] : section.sections()) {
    if (!key.starts_with("segment")) continue;
    ++count;
    ASSIGN_OR_RETURN(auto segment, read_segment(inner));
    if (segment) volume.segments.push_back(std::move(*segment));
  }
  if (section.number("segment_count") != count) return damaged();
  std::sort(volume.segments.begin(), volume.segments.end(),
            [](const LvmSegment& a, const LvmSegment& b) { return a.begin < b.begin; });
  uint64_t at = 0;
  for (const LvmSegment& segment : volume.segments) {
    if (segment.begin != at && why_.empty()) return damaged();
    at = segment.begin + segment.count;
  }
  volume.left_alone = why_;
  volume.is_known = is_known_;
  if (!why_.empty()) volume.segments.clear();
  return volume;
}

// Returns nullopt if its extents belong to other volumes; then `why_` is set.
Result<std::optional<LvmSegment>> Layout::read_segment(const LvmSection& section) {
  using Segment = std::optional<LvmSegment>;
  const auto type = section.text("type");
  if (!type) return damaged();
  if (*type == "striped" || *type == "linear") {
    ASSIGN_OR_RETURN(LvmSegment segment, read_striped(section));
    take(segment);
    return Segment(std::move(segment));
  }
  if (*type == "snapshot") {
    for (const char* const key : {"origin", "cow_store", "merging_store"})
      if (const auto name = section.text(key)) in_snapshots_.insert(*name);
    why_ = "it is a part of an LVM snapshot";
    return Segment();
  }
  if (std::find(kOnOthers.begin(), kOnOthers.end(), *type) == kOnOthers.end())
    return doubt(fmt::format("its volume group has a volume of an unknown type ({})", *type));
  if (names_physical_volume(section))
    return doubt(fmt::format("its volume group has a volume of type '{}'", *type));
  is_known_ = false;
  why_ = fmt::format("LVM volumes of type '{}' are not supported", *type);
  return Segment();
}

Result<LvmSegment> Layout::read_striped(const LvmSection& section) {
  const auto begin = section.number("start_extent");
  const auto count = section.number("extent_count");
  const uint64_t stripes = section.number("stripe_count").value_or(1);
  const auto* const list = section.list("stripes");
  constexpr uint64_t kMostExtents = uint64_t{1} << 40;
  if (!begin || !count || *count == 0 || *begin > kMostExtents || *count > kMostExtents || !list ||
      stripes == 0 || list->size() != 2 * stripes || *count % stripes != 0)
    return damaged();
  LvmSegment segment{*begin, *count, {}};
  for (size_t i = 0; i < list->size(); i += 2) {
    const auto* const volume = std::get_if<std::string>(&(*list)[i]);
    const auto* const extent = std::get_if<int64_t>(&(*list)[i + 1]);
    if (!volume || !extent || *extent < 0) return damaged();
    segment.stripes.push_back({*volume, static_cast<uint64_t>(*extent)});
  }
  if (stripes > 1) {
    segment.stripe_size = section.number("stripe_size").value_or(0) * kSector;
    if (segment.stripe_size == 0 || segment.stripe_size > out_.extent_size ||
        out_.extent_size % segment.stripe_size != 0)
      return damaged();
  }
  return segment;
}

bool Layout::names_physical_volume(const LvmSection& section) const {
  for (const auto& [key, list] : section.values())
    for (const LvmSection::Scalar& scalar : list)
      if (const auto* text = std::get_if<std::string>(&scalar); text && out_.others.count(*text))
        return true;
  return false;
}

void Layout::take(const LvmSegment& segment) {
  const uint64_t each = segment.count / segment.stripes.size();
  for (const LvmSegment::Stripe& stripe : segment.stripes) {
    if (stripe.volume != out_.name) continue;
    used_.add(stripe.extent, stripe.extent + each);
    used_count_ += each;
  }
}

Result<void> Layout::count_free() {
  const Ranges used = used_.take();
  if (used.total() != used_count_) return doubt("volumes of its volume group overlap");
  if (!used.empty() && used.all().back().end > out_.extents) return damaged();
  out_.free = one_range(0, out_.extents).without(used).scaled(out_.extent_size, out_.begin);
  return {};
}

}  // namespace

bool is_physical_volume(const Fields& head) {
  for (unsigned number = 0; number < kLabelSectors; ++number)
    if (is_label(head.part(number * kSector, kSector))) return true;
  return false;
}

Result<PhysicalVolume> PhysicalVolume::read(const ByteView& view) {
  ASSIGN_OR_RETURN(const Label label, read_label(view));
  ASSIGN_OR_RETURN(Group group, read_group(view, label));
  PhysicalVolume volume;
  RETURN_IF_ERROR(Layout(group, volume).read(label.id, view.size()));
  volume.text = std::move(group.section);
  volume.text_size = group.text_size;
  return volume;
}

}  // namespace vc::guest
