#include "optimize/free_space_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "appliance/passphrase.h"
#include "appliance/survey.h"
#include "copy/source/source_view.h"
#include "guest/inspection.h"

namespace vc::optimize {

using appliance::Space;
using appliance::TrimOptions;

namespace {

using Verdict = guest::Reading::Verdict;
using Way = PlannedVolume::Way;

bool is_of_windows(const std::string& type) {
  return type == "ntfs" || type == "vfat" || type == "exfat";
}

bool has_swap_files(const std::string& type) {
  return !is_of_windows(type) && type != "swap" && type != "free space";
}

// Returns true if `drop` may affect a volume of this type.
bool may_drop(const TrimOptions::Drop& drop, const std::string& type) {
  if (type == "ntfs") return drop.pagefile || drop.swapfile || drop.hiberfile;
  return drop.swap && has_swap_files(type);
}

class Planner {
 public:
  Planner(copy::Source& source, Trimming trimming, const TrimOptions& options, const Cancel& cancel)
      : source_(source), options_(options), cancel_(cancel) {
    plan_.trimming = trimming;
  }

  Result<FreeSpacePlan> run();

 private:
  void inspect();
  // Marks the volumes that the user excludes. Returns false if there is nothing left to decide.
  Result<bool> choose();
  Result<void> check_suspended() const;
  Result<void> decide();
  Result<void> decide(size_t number);
  // Notes a reason to boot: always, or only if the volume has enough data.
  void needs_appliance(PlannedVolume& volume, std::string why);
  void may_need_appliance(PlannedVolume& volume, std::string why);
  bool takes(const guest::Volume& volume) const;
  void decide_boot();
  uint64_t unchanged_until() const;
  void keep_whole(PlannedVolume& volume, const std::string& more);
  void skip(const guest::Volume& from, PlannedVolume& volume);
  Result<uint64_t> stored(const guest::Volume& volume);
  Result<uint64_t> stored_elsewhere();
  bool is_auto() const { return plan_.trimming == Trimming::kAuto; }

  copy::Source& source_;
  const TrimOptions& options_;
  const Cancel& cancel_;
  FreeSpacePlan plan_;
  guest::Inspection inspection_;
  std::vector<Space> spaces_;  // one for each volume
  guest::Ranges::Builder unused_;
  bool must_boot_ = false;
  std::vector<size_t> doubtful_;  // indexes of volumes
};

// Lists a disk with a doubtful partition table as a volume.
void Planner::inspect() {
  const auto view = std::make_shared<copy::SourceView>(source_, 0, cancel_);
  const TrimOptions::Drop& drop = options_.drop;
  inspection_ = guest::inspect({view}, {drop.pagefile, drop.swapfile, drop.hiberfile, drop.swap});
  for (const std::string& doubt : inspection_.doubts) {
    guest::Volume disk;
    disk.device = doubt.substr(0, doubt.find(':'));
    disk.type = "partition table";
    disk.size = source_.size();
    disk.why = doubt.substr(std::min(doubt.size(), disk.device.size() + 2));
    disk.place = {guest::one_range(0, source_.size())};
    inspection_.volumes.push_back(std::move(disk));
  }
  for (const guest::Volume& volume : inspection_.volumes) {
    Space space;
    space.device = volume.device;
    space.type = volume.type;
    space.label = volume.label;
    space.uuid = volume.uuid;
    space.size = volume.size;
    if (volume.verdict == Verdict::kLeftAlone && !takes(volume)) space.left_alone = volume.why;
    spaces_.push_back(std::move(space));
  }
}

// Returns true if the appliance can trim a volume that this planner leaves alone.
bool Planner::takes(const guest::Volume& volume) const {
  if (appliance::is_encrypted(volume.type)) return !options_.passphrases.empty();
  return volume.type == "ntfs" && options_.drop.shadows;
}

Result<bool> Planner::choose() {
  const auto chosen = appliance::choose(options_, spaces_);
  if (chosen) return true;
  if (!is_auto()) return fail(chosen.error());
  // The user may have named something that only the appliance can find.
  plan_.boots = true;
  plan_.why = chosen.error().message();
  return false;
}

// Uses the same rules as appliance::check_shut_down.
Result<void> Planner::check_suspended() const {
  const bool windows_has_others = std::any_of(
      spaces_.begin(), spaces_.end(),
      [](const Space& space) { return space.left_alone.empty() && is_of_windows(space.type); });
  for (size_t i = 0; i < spaces_.size(); ++i) {
    const Space& space = spaces_[i];
    if (inspection_.volumes[i].verdict != Verdict::kSuspended) continue;
    const bool is_chosen = space.left_alone.empty();
    const bool is_ntfs = space.type == "ntfs";
    if (is_ntfs && !is_chosen && !windows_has_others) continue;
    const bool is_dropped = is_ntfs ? options_.drop.hiberfile && is_chosen : options_.drop.swap;
    if (is_dropped && is_auto()) continue;
    if (is_dropped)
      return fail(Error::unsupported(
          space.device +
          ": it holds a saved session, which only the appliance can discard: use --trim=auto"));
    return fail(is_ntfs ? appliance::hibernated(space.device) : appliance::suspended(space.device));
  }
  return {};
}

Result<uint64_t> Planner::stored(const guest::Volume& volume) {
  if (volume.verdict == Verdict::kFree)
    return copy::data_within(source_, volume.on_disks[0], cancel_);
  if (volume.place.empty()) return stored_elsewhere();
  return copy::data_within(source_, volume.place[0], cancel_);
}

// Returns the data outside of the volumes with known position, bytes. Thin volumes are there, among
// others.
Result<uint64_t> Planner::stored_elsewhere() {
  guest::Ranges::Builder known;
  for (const guest::Volume& volume : inspection_.volumes)
    for (const auto* const list : {&volume.place, &volume.on_disks})
      if (!list->empty())
        for (const guest::Range& range : list->front().all()) known.add(range.begin, range.end);
  return copy::data_within(source_, guest::one_range(0, source_.size()).without(known.take()),
                           cancel_);
}

void Planner::keep_whole(PlannedVolume& volume, const std::string& more) {
  volume.way = Way::kWhole;
  volume.why += more;
}

void Planner::needs_appliance(PlannedVolume& volume, std::string why) {
  volume.why = std::move(why);
  if (is_auto()) {
    volume.way = Way::kAppliance;
    must_boot_ = true;
    return;
  }
  plan_.not_dropped.push_back(
      fmt::format("{}: --drop has no effect here: {}", volume.device, volume.why));
}

void Planner::may_need_appliance(PlannedVolume& volume, std::string why) {
  volume.why = std::move(why);
  if (is_auto()) doubtful_.push_back(plan_.volumes.size() - 1);
}

void Planner::skip(const guest::Volume& from, PlannedVolume& volume) {
  volume.way = Way::kMetadata;
  volume.why.clear();
  volume.free = from.free;
  for (const guest::Range& range : from.on_disks[0].all()) unused_.add(range.begin, range.end);
  for (const guest::VolumeFile& file : from.files) {
    for (const guest::Range& range : file.on_disks[0].all()) unused_.add(range.begin, range.end);
    plan_.dropped.push_back({from.device, file.path, file.size});
  }
}

Result<void> Planner::decide(size_t number) {
  const guest::Volume& from = inspection_.volumes[number];
  const Space& space = spaces_[number];
  PlannedVolume& volume = plan_.volumes.emplace_back();
  volume.device = from.device;
  volume.type = from.type;
  volume.label = from.label;
  volume.uuid = from.uuid;
  volume.size = from.size;
  ASSIGN_OR_RETURN(volume.stored, stored(from));
  volume.why = from.why;
  volume.excluded = space.excluded;
  if (space.excluded) {
    volume.why = space.left_alone;
    return {};
  }
  const bool drops = may_drop(options_.drop, from.type);
  switch (from.verdict) {
    case Verdict::kFree:
      if (drops && !from.no_files.empty()) {
        needs_appliance(volume, from.no_files);
        if (is_auto()) return {};
      }
      skip(from, volume);
      return {};
    case Verdict::kLeftAlone:
      if (takes(from)) needs_appliance(volume, from.why);
      return {};
    case Verdict::kSuspended:
      needs_appliance(volume, "its saved session is discarded");
      return {};
    case Verdict::kDoubt:
      break;
  }
  if (drops)
    needs_appliance(volume, from.why);
  else if (!from.type.empty() || from.place.empty())
    may_need_appliance(volume, from.why);
  return {};
}

// A passphrase that fits no known device may be for a device inside of an unread volume: boot.
Result<void> Planner::decide() {
  for (size_t i = 0; i < inspection_.volumes.size(); ++i) RETURN_IF_ERROR(decide(i));
  const bool has_encrypted = std::any_of(spaces_.begin(), spaces_.end(), [](const Space& space) {
    return appliance::is_encrypted(space.type);
  });
  if (is_auto() && !options_.passphrases.empty() && !has_encrypted)
    for (PlannedVolume& volume : plan_.volumes)
      if (volume.way == Way::kWhole && !volume.excluded) needs_appliance(volume, volume.why);
  return {};
}

void Planner::decide_boot() {
  uint64_t data = 0;
  for (const size_t number : doubtful_) data += plan_.volumes[number].stored;
  plan_.boots = must_boot_ || data >= FreeSpacePlan::kWorthABoot;
  for (const size_t number : doubtful_) {
    PlannedVolume& volume = plan_.volumes[number];
    if (plan_.boots)
      volume.way = Way::kAppliance;
    else
      keep_whole(volume, fmt::format(" ({} MiB of data are not worth booting the appliance)",
                                     volume.stored >> 20));
  }
  const auto first =
      std::find_if(plan_.volumes.begin(), plan_.volumes.end(),
                   [](const PlannedVolume& it) { return it.way == Way::kAppliance; });
  if (plan_.boots)
    plan_.why = first->device + ": " + first->why;
  else if (!is_auto())
    plan_.why = "as requested";
  else if (doubtful_.empty())
    plan_.why = "it would free no more space than the metadata show";
  else
    plan_.why = "the space that it could free is not worth a boot";
}

// The appliance itself decides about volumes that are neither known nor excluded by the user. So
// nothing changes before the first of them.
uint64_t Planner::unchanged_until() const {
  uint64_t until = source_.size();
  for (size_t i = 0; i < plan_.volumes.size(); ++i) {
    if (plan_.volumes[i].way == Way::kMetadata || plan_.volumes[i].excluded) continue;
    const auto& place = inspection_.volumes[i].place;
    if (place.empty() || place[0].empty()) return 0;
    until = std::min(until, place[0].all().front().begin);
  }
  return until;
}

Result<FreeSpacePlan> Planner::run() {
  if (options_.sector_size && is_auto()) {
    plan_.boots = true;
    plan_.why = "--sector-size needs the appliance";
    return std::move(plan_);
  }
  ASSIGN_OR_RETURN(const uint64_t data,
                   copy::data_within(source_, guest::one_range(0, source_.size()), cancel_));
  plan_.blank = data == 0;
  inspect();
  if (cancel_.requested()) return fail(Error::cancelled());
  ASSIGN_OR_RETURN(const bool is_known, choose());
  if (!is_known) return std::move(plan_);
  RETURN_IF_ERROR(check_suspended());
  RETURN_IF_ERROR(decide());
  decide_boot();
  plan_.unchanged_until = unchanged_until();
  guest::Ranges unused = unused_.take();
  if (!unused.empty()) plan_.unused = std::make_shared<const guest::Ranges>(std::move(unused));
  return std::move(plan_);
}

}  // namespace

const char* to_string(Trimming trimming) {
  switch (trimming) {
    case Trimming::kAuto:
      return "auto";
    case Trimming::kMetadata:
      return "metadata";
    case Trimming::kAppliance:
      return "appliance";
    case Trimming::kNone:
      break;
  }
  return "none";
}

std::vector<std::string> FreeSpacePlan::known_devices() const {
  std::vector<std::string> devices;
  for (const PlannedVolume& it : volumes)
    if (it.way == Way::kMetadata) devices.push_back(it.device);
  return devices;
}

std::string FreeSpacePlan::why_nothing() const {
  if (boots || blank || trimming == Trimming::kNone) return {};
  if (!failed.empty()) return failed;
  const auto is_done = [](const PlannedVolume& it) {
    return it.way == Way::kMetadata || it.excluded;
  };
  if (std::any_of(volumes.begin(), volumes.end(), is_done)) return {};
  for (const PlannedVolume& it : volumes)
    if (!it.type.empty()) return it.device + ": " + it.why;
  return "no known filesystem was found";
}

Result<FreeSpacePlan> plan_free_space(copy::Source& source, Trimming trimming,
                                      const TrimOptions& options, const Cancel& cancel) {
  switch (trimming) {
    case Trimming::kAuto:
    case Trimming::kMetadata:
      return Planner(source, trimming, options, cancel).run();
    case Trimming::kAppliance:
    case Trimming::kNone:
      break;
  }
  FreeSpacePlan plan;
  plan.trimming = trimming;
  plan.boots = trimming == Trimming::kAppliance;
  plan.why = "as requested";
  return plan;
}

}  // namespace vc::optimize
