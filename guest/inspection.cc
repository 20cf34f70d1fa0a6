#include "guest/inspection.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "guest/filesystem/swap.h"
#include "guest/known_formats.h"
#include "guest/layout/partition_table.h"
#include "guest/layout/physical_volume.h"
#include "guest/reading/striped_view.h"

namespace vc::guest {

namespace {

using View = std::shared_ptr<const ByteView>;
using Verdict = Reading::Verdict;

// Most text of volume groups to keep, bytes. It takes about thirty times as much memory.
constexpr uint64_t kMostText = 2 << 20;

// Names disks as the appliance's kernel does: sda … sdz, sdaa ….
std::string disk_name(size_t number) {
  std::string letters;
  for (size_t n = number + 1; n > 0; n = (n - 1) / 26)
    letters.insert(letters.begin(), static_cast<char>('a' + (n - 1) % 26));
  return "/dev/sd" + letters;
}

void set(Volume& volume, Verdict verdict, std::string why) {
  volume.verdict = verdict;
  volume.why = std::move(why);
}

struct Whereabouts {
  bool is_whole_disk = false;
  std::string other_owner;  // according to its partition's type
};

// Returns true, and sets the verdict, if one of the formats must be left alone.
bool is_left_alone(Volume& volume, const std::vector<Recognized>& all) {
  for (const Recognized& it : all) {
    if (it.left_alone.empty()) continue;
    volume.type = it.type;
    set(volume, Verdict::kLeftAlone, it.left_alone);
    return true;
  }
  return false;
}

// Checks a disk that has a partition table for a newer owner of the whole disk. Sets a verdict
// other than kFree, or returns an error, if there is one. A filesystem is not a newer owner: mkfs
// removes the table, but making a table leaves the filesystem's superblock. mkswap(8) is one: it
// keeps the first sectors.
Result<void> check_owner(Volume& volume, const View& disk) {
  volume.verdict = Verdict::kFree;
  ASSIGN_OR_RETURN(const auto all, recognize(*disk));
  if (is_left_alone(volume, all)) return {};
  for (const Recognized& it : all) {
    volume.type = it.type;
    if (it.has_session) {
      set(volume, Verdict::kSuspended, kHasSession);
      return {};
    }
    if (it.format == nullptr || it.format == &kSwap)
      return doubt(fmt::format("it has a partition table, and looks like {}", it.type));
  }
  return {};
}

// Returns an error if a partition or a logical volume has a partition table: it may be the disk of
// another guest. The table may be newer than other formats in it, since making a table writes only
// the first sector.
Result<void> check_inside(const ByteView& view, const Whereabouts& where) {
  if (!where.other_owner.empty()) return doubt(where.other_owner);
  if (where.is_whole_disk) return {};
  ASSIGN_OR_RETURN(const Block start, view.block(0, std::min(view.size(), kTableHead)));
  if (has_partition_table(start.fields())) return doubt("it has a partition table of its own");
  return {};
}

// Returns an error if the sector size of an MBR is doubtful. An MBR counts sectors, and no image
// tells their size. If a known format is where a disk with 4096-byte sectors would have it, then
// 512 is doubtful.
Result<void> check_unit(const View& disk, const PartitionTable& table) {
  constexpr uint64_t kTimes = 4096 / 512;
  if (table.kind != PartitionTable::Kind::kMbr) return {};
  for (const Partition& it : table.partitions) {
    if (it.begin + it.length > disk->size() / kTimes) continue;
    ASSIGN_OR_RETURN(const auto all,
                     recognize(*window(disk, it.begin * kTimes, it.length * kTimes)));
    if (!all.empty())
      return doubt(fmt::format(
          "partition {} begins with a filesystem for sectors of 512 bytes and of 4096 bytes",
          it.number));
  }
  return {};
}

struct Member {
  PhysicalVolume volume;
  View view;
  bool is_of_one_age = true;  // same metadata as the first of its group
};

class Inspector {
 public:
  Inspector(const std::vector<View>& disks, const FileKinds& kinds)
      : disks_(disks), kinds_(kinds) {}

  Inspection run() {
    for (size_t number = 0; number < disks_.size(); ++number) inspect_disk(number);
    for (const auto& [id, members] : groups_) inspect_group(members);
    if (!unclean_.empty()) keep_unmarked();
    return std::move(result_);
  }

 private:
  void inspect_disk(size_t number);
  void inspect_partition(const std::string& disk_name, const View& disk,
                         const Partition& partition);
  // Returns true if another format than the table owns the whole disk, and appends it as a volume.
  bool is_owned(const std::string& name, const View& disk);
  // Appends the volume in `view`, if there is one.
  void inspect_volume(std::string device, const View& view, const Whereabouts& where = {});
  Volume volume_of(std::string device, const View& view) const;
  Result<void> read_volume(Volume& volume, const View& view, const Whereabouts& where);
  Result<void> read_format(Volume& volume, const ByteView& view, const Format& format);
  void find_files(Volume& volume, const ByteView& view, const Format& format, const Ranges& free);
  // Doubts volumes that look the same mounted and unmounted, because another volume (`unclean_`) of
  // the guest is mounted.
  void keep_unmarked();
  Result<void> read_member(Volume& volume, const View& view);
  void inspect_group(const std::vector<Member>& members);
  void inspect_logical(const LogicalVolume& logical, const std::vector<Member>& members);
  // Returns nothing if a part of the volume is on a missing disk.
  std::vector<MappedView::Piece> pieces_of(const LogicalVolume& logical,
                                           const std::vector<Member>& members) const;
  void add_free(Volume& volume, const ByteView& view, const Ranges& free) const;
  // Returns a range list for each disk.
  std::vector<Ranges> on_disks(const ByteView& view, const Ranges& ranges) const;

  const std::vector<View>& disks_;
  const FileKinds kinds_;
  std::map<std::string, std::vector<Member>> groups_;  // by the group's ID
  uint64_t text_ = 0;                                  // bytes of text, of all groups
  std::string unclean_;                                // the first volume that was not unmounted
  std::set<std::string> unmarked_;                     // devices of volumes with an unmarked state
  Inspection result_;
};

void Inspector::inspect_disk(size_t number) {
  const View& disk = disks_[number];
  const std::string name = disk_name(number);
  const auto table = read_partition_table(*disk);
  if (!table) {
    // A saved session or another owner counts even if the table is invalid.
    if (!is_owned(name, disk)) result_.doubts.push_back(name + ": " + table.error().message());
    return;
  }
  if (table->kind == PartitionTable::Kind::kNone)
    return inspect_volume(name, disk, {.is_whole_disk = true, .other_owner = {}});
  if (is_owned(name, disk)) return;
  if (auto unit = check_unit(disk, *table); !unit) {
    result_.doubts.push_back(name + ": " + unit.error().message());
    return;
  }
  for (const Partition& partition : table->partitions) inspect_partition(name, disk, partition);
}

void Inspector::inspect_partition(const std::string& disk_name, const View& disk,
                                  const Partition& partition) {
  const std::string device = disk_name + std::to_string(partition.number);
  if (partition.left_alone.empty())
    return inspect_volume(device, window(disk, partition.begin, partition.length),
                          {.is_whole_disk = false, .other_owner = partition.other});
  Volume volume;
  volume.device = device;
  volume.size = partition.length;
  set(volume, Verdict::kLeftAlone, partition.left_alone);
  result_.volumes.push_back(std::move(volume));
}

bool Inspector::is_owned(const std::string& name, const View& disk) {
  Volume volume = volume_of(name, disk);
  if (auto owner = check_owner(volume, disk); !owner)
    set(volume, Verdict::kDoubt, owner.error().message());
  if (volume.verdict == Verdict::kFree) return false;
  result_.volumes.push_back(std::move(volume));
  return true;
}

Volume Inspector::volume_of(std::string device, const View& view) const {
  Volume volume;
  volume.device = std::move(device);
  volume.size = view->size();
  volume.on_disks.resize(disks_.size());
  volume.place = on_disks(*view, one_range(0, view->size()));
  return volume;
}

void Inspector::inspect_volume(std::string device, const View& view, const Whereabouts& where) {
  Volume volume = volume_of(std::move(device), view);
  if (auto read = read_volume(volume, view, where); !read)
    set(volume, Verdict::kDoubt, read.error().message());
  if (volume.type == kLvmMember && volume.verdict == Verdict::kFree) return;
  result_.volumes.push_back(std::move(volume));
}

Result<void> Inspector::read_volume(Volume& volume, const View& view, const Whereabouts& where) {
  ASSIGN_OR_RETURN(const auto all, recognize(*view));
  if (all.empty()) return doubt(kUnknownContent);
  volume.type = all.front().type;
  if (is_left_alone(volume, all)) return {};
  if (all.size() > 1)
    return doubt(fmt::format("it looks like {} and like {}", all[0].type, all[1].type));
  if (!all.front().has_session)
    if (auto inside = check_inside(*view, where); !inside) return inside;
  if (all.front().type == kLvmMember) return read_member(volume, view);
  if (!all.front().format) return doubt("its metadata cannot be read by this command");
  return read_format(volume, *view, *all.front().format);
}

Result<void> Inspector::read_format(Volume& volume, const ByteView& view, const Format& format) {
  auto read = format.read(view);
  if (!read && is_unclean(read.error()) && unclean_.empty()) unclean_ = volume.device;
  ASSIGN_OR_RETURN(const Reading reading, std::move(read));
  volume.label = reading.label;
  volume.uuid = reading.uuid;
  if (!reading.type.empty()) volume.type = reading.type;
  set(volume, reading.verdict, reading.why);
  if (reading.verdict != Verdict::kFree) return {};
  if (reading.is_unmarked) unmarked_.insert(volume.device);
  add_free(volume, view, reading.free);
  find_files(volume, view, format, reading.free);
  return {};
}

void Inspector::keep_unmarked() {
  for (Volume& volume : result_.volumes) {
    if (unmarked_.count(volume.device) == 0) continue;
    set(volume, Verdict::kDoubt,
        fmt::format("{} was not unmounted, and it is unknown whether this one was", unclean_));
    volume.free = 0;
    for (Ranges& ranges : volume.on_disks) ranges = {};
    volume.files.clear();
  }
}

void Inspector::find_files(Volume& volume, const ByteView& view, const Format& format,
                           const Ranges& free) {
  if (!format.find) return;
  const auto found = format.find(view, free, kinds_);
  if (!found) {
    volume.no_files = found.error().message();
    return;
  }
  for (const FoundFile& file : *found)
    volume.files.push_back({file.path, file.size, on_disks(view, file.contents)});
}

Result<void> Inspector::read_member(Volume& volume, const View& view) {
  ASSIGN_OR_RETURN(PhysicalVolume member, PhysicalVolume::read(*view));
  volume.verdict = Verdict::kFree;
  std::vector<Member>& members = groups_[member.group_id];
  Member added{std::move(member), view};
  if (members.empty()) {
    text_ += added.volume.text_size;
  } else {
    // The text and the volumes of the first member suffice.
    added.is_of_one_age = added.volume.text == members.front().volume.text;
    added.volume.text = {};
    added.volume.volumes.clear();
  }
  // Too much text: doubts all groups.
  if (text_ > kMostText) added.volume.text = {};
  members.push_back(std::move(added));
  return {};
}

void Inspector::inspect_group(const std::vector<Member>& members) {
  const PhysicalVolume& first = members.front().volume;
  Volume group;
  group.device = first.group;
  group.type = "free space";
  group.uuid = first.group_id;
  group.on_disks.resize(disks_.size());
  for (const Member& member : members) {
    const bool is_twice = std::count_if(members.begin(), members.end(), [&](const Member& other) {
                            return other.volume.id == member.volume.id;
                          }) > 1;
    if (!member.is_of_one_age || is_twice || member.volume.was_missing || text_ > kMostText) {
      set(group, Verdict::kDoubt,
          text_ > kMostText           ? "the metadata of volume groups are too long to be read here"
          : member.volume.was_missing ? "it was changed while one of its disks was missing"
                                      : "the metadata on its disks have different ages");
      result_.volumes.push_back(std::move(group));
      return;
    }
  }
  group.verdict = Verdict::kFree;
  for (const Member& member : members) {
    group.size += member.volume.free.total();
    add_free(group, *member.view, member.volume.free);
  }
  const auto logical = first.volumes;
  if (group.size > 0) result_.volumes.push_back(std::move(group));
  for (const LogicalVolume& volume : logical) inspect_logical(volume, members);
}

void Inspector::inspect_logical(const LogicalVolume& logical, const std::vector<Member>& members) {
  // It is a part of another volume, which is left alone.
  if (logical.is_hidden) return;
  Volume volume;
  volume.device = fmt::format("/dev/{}/{}", members.front().volume.group, logical.name);
  if (!logical.left_alone.empty()) {
    set(volume, logical.is_known ? Verdict::kLeftAlone : Verdict::kDoubt, logical.left_alone);
  } else {
    auto pieces = pieces_of(logical, members);
    if (!pieces.empty())
      return inspect_volume(volume.device, std::make_shared<MappedView>(std::move(pieces)));
    set(volume, Verdict::kLeftAlone, "a part of it is on a disk that was not given");
  }
  result_.volumes.push_back(std::move(volume));
}

std::vector<MappedView::Piece> Inspector::pieces_of(const LogicalVolume& logical,
                                                    const std::vector<Member>& members) const {
  const uint64_t extent = members.front().volume.extent_size;
  std::vector<MappedView::Piece> pieces;
  for (const LvmSegment& segment : logical.segments) {
    std::vector<StripedView::Column> columns;
    for (const LvmSegment::Stripe& stripe : segment.stripes) {
      const auto member = std::find_if(members.begin(), members.end(), [&](const Member& it) {
        return it.volume.name == stripe.volume;
      });
      const uint64_t count = segment.count / segment.stripes.size();
      if (member == members.end() || stripe.extent > member->volume.extents ||
          count > member->volume.extents - stripe.extent)
        return {};
      columns.push_back({member->view, member->volume.begin + stripe.extent * extent});
    }
    const uint64_t length = segment.count * extent;
    MappedView::Piece piece{segment.begin * extent, length, columns[0].view, columns[0].at};
    if (columns.size() > 1) {
      piece.view = std::make_shared<StripedView>(std::move(columns), segment.stripe_size, length);
      piece.at = 0;
    }
    pieces.push_back(std::move(piece));
  }
  return pieces;
}

std::vector<Ranges> Inspector::on_disks(const ByteView& view, const Ranges& ranges) const {
  std::vector<Ranges::Builder> builders(disks_.size());
  view.to_disks(ranges, builders);
  std::vector<Ranges> result;
  result.reserve(builders.size());
  for (Ranges::Builder& builder : builders) result.push_back(builder.take());
  return result;
}

void Inspector::add_free(Volume& volume, const ByteView& view, const Ranges& free) const {
  std::vector<Ranges::Builder> builders(disks_.size());
  for (size_t i = 0; i < volume.on_disks.size(); ++i)
    for (const Range& range : volume.on_disks[i].all()) builders[i].add(range.begin, range.end);
  view.to_disks(free, builders);
  volume.free = 0;
  for (size_t i = 0; i < builders.size(); ++i) {
    volume.on_disks[i] = builders[i].take();
    volume.free += volume.on_disks[i].total();
  }
}

}  // namespace

const Volume* Inspection::suspended() const {
  for (const Volume& volume : volumes)
    if (volume.verdict == Reading::Verdict::kSuspended) return &volume;
  return nullptr;
}

Ranges Inspection::free_on(size_t disk) const {
  if (suspended() != nullptr) return {};
  Ranges::Builder builder;
  for (const Volume& volume : volumes)
    if (disk < volume.on_disks.size())
      for (const Range& range : volume.on_disks[disk].all()) builder.add(range.begin, range.end);
  return builder.take();
}

namespace {

size_t count_ranges(const Inspection& inspection) {
  size_t count = 0;
  for (const Volume& volume : inspection.volumes) {
    for (const Ranges& ranges : volume.on_disks) count += ranges.all().size();
    for (const Ranges& ranges : volume.place) count += ranges.all().size();
    for (const VolumeFile& file : volume.files)
      for (const Ranges& ranges : file.on_disks) count += ranges.all().size();
  }
  return count;
}

// Returns nullopt if the volumes have too many ranges, each of them or together.
std::optional<Inspection> inspect_bounded(const std::vector<View>& disks, const FileKinds& kinds) {
  try {
    Inspection found = Inspector(disks, kinds).run();
    if (count_ranges(found) <= Ranges::Builder::kMost) return found;
    return std::nullopt;
  } catch (const TooManyRanges&) {
    return std::nullopt;
  }
}

}  // namespace

Inspection inspect(const std::vector<View>& disks, const FileKinds& kinds) {
  if (auto found = inspect_bounded(disks, kinds)) return std::move(*found);
  Inspection nothing;
  for (size_t number = 0; number < disks.size(); ++number)
    nothing.doubts.push_back(disk_name(number) + ": its free space has too many pieces");
  return nothing;
}

}  // namespace vc::guest
