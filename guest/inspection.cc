#include "guest/inspection.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "guest/known_formats.h"
#include "guest/layout/partition_table.h"
#include "guest/layout/physical_volume.h"

namespace guest {

using qcow2::Result;

namespace {

using View = std::shared_ptr<const ByteView>;
using Verdict = Reading::Verdict;

// Pieces of a striped volume: more would be a stripe size that is not used.
constexpr uint64_t kMostPieces = 4 << 20;

// As the appliance's kernel counts: sda … sdz, sdaa ….
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

struct Member {
  PhysicalVolume volume;
  View view;
};

class Inspector {
 public:
  Inspector(const std::vector<View>& disks, const FileKinds& kinds)
      : disks_(disks), kinds_(kinds) {}

  Inspection run() {
    for (size_t number = 0; number < disks_.size(); ++number) inspect_disk(number);
    for (const auto& [id, members] : groups_) inspect_group(members);
    return std::move(result_);
  }

 private:
  void inspect_disk(size_t number);
  // Appends the volume that `view` holds, if it holds anything.
  void inspect_volume(std::string device, const View& view);
  Result<void> read_volume(Volume& volume, const View& view);
  void find_files(Volume& volume, const ByteView& view, const Format& format, const Ranges& free);
  Result<void> read_member(Volume& volume, const View& view);
  void inspect_group(const std::vector<Member>& members);
  void inspect_logical(const LogicalVolume& logical, const std::vector<Member>& members);
  // Empty if a part of it lies on a disk that is not here.
  std::vector<MappedView::Piece> pieces_of(const LogicalVolume& logical,
                                           const std::vector<Member>& members) const;
  void add_free(Volume& volume, const ByteView& view, const Ranges& free) const;
  // A range list for each disk.
  std::vector<Ranges> on_disks(const ByteView& view, const Ranges& ranges) const;

  const std::vector<View>& disks_;
  const FileKinds kinds_;
  std::map<std::string, std::vector<Member>> groups_;  // by the ID of the group
  Inspection result_;
};

void Inspector::inspect_disk(size_t number) {
  const View& disk = disks_[number];
  const std::string name = disk_name(number);
  const auto table = read_partition_table(*disk);
  if (!table) {
    result_.doubts.push_back(name + ": " + table.error().message());
    return;
  }
  // A table with entries says more than what an earlier filesystem has left in front of it.
  if (table->kind == PartitionTable::Kind::kNone) return inspect_volume(name, disk);
  for (const Partition& partition : table->partitions) {
    const std::string device = name + std::to_string(partition.number);
    if (partition.left_alone.empty()) {
      inspect_volume(device, window(disk, partition.begin, partition.length));
      continue;
    }
    Volume volume;
    volume.device = device;
    volume.size = partition.length;
    set(volume, Verdict::kLeftAlone, partition.left_alone);
    result_.volumes.push_back(std::move(volume));
  }
}

void Inspector::inspect_volume(std::string device, const View& view) {
  Volume volume;
  volume.device = std::move(device);
  volume.size = view->size();
  volume.on_disks.resize(disks_.size());
  volume.place = on_disks(*view, one_range(0, view->size()));
  if (auto read = read_volume(volume, view); !read)
    set(volume, Verdict::kDoubt, read.error().message());
  if (volume.type == kLvmMember && volume.verdict == Verdict::kFree) return;
  result_.volumes.push_back(std::move(volume));
}

Result<void> Inspector::read_volume(Volume& volume, const View& view) {
  ASSIGN_OR_RETURN(const auto all, recognize(*view));
  if (all.empty()) return doubt("what it holds is not known");
  volume.type = all.front().type;
  for (const Recognized& it : all) {
    if (!it.left_alone.empty()) {
      volume.type = it.type;
      set(volume, Verdict::kLeftAlone, it.left_alone);
      return {};
    }
  }
  if (all.size() > 1)
    return doubt(fmt::format("it looks like {} and like {}", all[0].type, all[1].type));
  if (all.front().type == kLvmMember) return read_member(volume, view);
  if (!all.front().format) return doubt("its metadata are not read here");
  ASSIGN_OR_RETURN(const Reading reading, all.front().format->read(*view));
  volume.label = reading.label;
  volume.uuid = reading.uuid;
  if (!reading.type.empty()) volume.type = reading.type;
  set(volume, reading.verdict, reading.why);
  if (reading.verdict != Verdict::kFree) return {};
  add_free(volume, *view, reading.free);
  find_files(volume, *view, *all.front().format, reading.free);
  return {};
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
  groups_[member.group_id].push_back({std::move(member), view});
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
    if (!(member.volume.text == first.text) || is_twice || member.volume.was_missing) {
      set(group, Verdict::kDoubt,
          member.volume.was_missing ? "it was changed while one of its disks was missing"
                                    : "the metadata on its disks are not of one age");
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
  // A part of another volume that is left alone with it.
  if (logical.is_hidden) return;
  Volume volume;
  volume.device = fmt::format("/dev/{}/{}", members.front().volume.group, logical.name);
  if (!logical.left_alone.empty()) {
    set(volume, logical.is_known ? Verdict::kLeftAlone : Verdict::kDoubt, logical.left_alone);
  } else {
    auto pieces = pieces_of(logical, members);
    if (!pieces.empty())
      return inspect_volume(volume.device, std::make_shared<MappedView>(std::move(pieces)));
    set(volume, Verdict::kLeftAlone, "a part of it lies on a disk that is not here");
  }
  result_.volumes.push_back(std::move(volume));
}

std::vector<MappedView::Piece> Inspector::pieces_of(const LogicalVolume& logical,
                                                    const std::vector<Member>& members) const {
  const uint64_t extent = members.front().volume.extent_size;
  std::vector<MappedView::Piece> pieces;
  for (const LvmSegment& segment : logical.segments) {
    std::vector<MappedView::Piece> stripes;  // the part of the segment that each has
    for (const LvmSegment::Stripe& stripe : segment.stripes) {
      const auto member = std::find_if(members.begin(), members.end(), [&](const Member& it) {
        return it.volume.name == stripe.volume;
      });
      const uint64_t count = segment.count / segment.stripes.size();
      if (member == members.end() || stripe.extent > member->volume.extents ||
          count > member->volume.extents - stripe.extent)
        return {};
      stripes.push_back(
          {0, count * extent, member->view, member->volume.begin + stripe.extent * extent});
    }
    const uint64_t step = stripes.size() == 1 ? segment.count * extent : segment.stripe_size;
    const uint64_t begin = segment.begin * extent;
    const uint64_t length = segment.count * extent;
    if (length / step + pieces.size() > kMostPieces) return {};
    for (uint64_t i = 0; i * step < length; ++i) {
      const MappedView::Piece& from = stripes[i % stripes.size()];
      pieces.push_back({begin + i * step, step, from.view, from.at + i / stripes.size() * step});
    }
  }
  return pieces;
}

std::vector<Ranges> Inspector::on_disks(const ByteView& view, const Ranges& ranges) const {
  std::vector<Ranges::Builder> builders(disks_.size());
  view.to_disks(ranges, builders);
  std::vector<Ranges> result;
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

Inspection inspect(const std::vector<View>& disks, const FileKinds& kinds) {
  return Inspector(disks, kinds).run();
}

}  // namespace guest
