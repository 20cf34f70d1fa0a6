#include "appliance/metadata_trim.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "appliance/file_disk.h"
#include "appliance/survey.h"
#include "guest/inspection.h"

namespace vc::appliance {

using guest::Volume;
using Outcome = TrimmedSpace::Outcome;
using Verdict = guest::Reading::Verdict;

namespace {

constexpr const char* kGroupType = "free space";

Space::Kind kind_of(const Volume& volume) {
  if (volume.type == kGroupType) return Space::Kind::kVolumeGroup;
  if (volume.type == "swap")
    return volume.verdict == Verdict::kSuspended ? Space::Kind::kSuspended : Space::Kind::kSwap;
  return volume.type.empty() ? Space::Kind::kOther : Space::Kind::kFilesystem;
}

Space space_of(const Volume& volume) {
  Space space;
  space.kind = kind_of(volume);
  space.device = volume.device;
  space.type = volume.type;
  space.label = volume.label;
  space.uuid = volume.uuid;
  space.size = volume.size;
  space.left_alone = volume.why;
  return space;
}

// Returns true if the user can do something to make the volume trimmable.
bool wants_advice(const Volume& volume) {
  if (volume.verdict == Verdict::kDoubt) return volume.why != guest::kUnknownContent;
  const bool is_logical = volume.device.rfind('/') > std::string_view("/dev").size();
  return volume.verdict == Verdict::kLeftAlone && (volume.type == "ntfs" || is_logical);
}

// Adds the state that an error during the trim leaves.
Error with_state(Error error) {
  if (error.kind() == Error::Kind::kCancelled) return error;
  return std::move(error).with_context(
      "trimming is incomplete (the guest's files are unchanged; virt-compact check -r leaks frees "
      "leaked clusters)");
}

class MetadataTrimming {
 public:
  MetadataTrimming(const TrimOptions& options, Observer& observer, const Cancel& cancel)
      : options_(options), observer_(observer), cancel_(cancel) {}

  Result<TrimReport> run();

 private:
  Result<void> inspect_disks();
  Result<void> open_disks();
  Result<TrimmedDisk> describe(size_t number) const;
  Result<void> inspect();
  Result<void> check_suspended() const;
  Result<void> make_plans();
  void report_volumes();
  Result<void> discard();
  Result<void> close();

  bool is_chosen(size_t volume) const {
    return inspection_.volumes[volume].verdict == Verdict::kFree &&
           spaces_[volume].left_alone.empty();
  }
  bool writes() const { return !options_.dry_run; }

  const TrimOptions& options_;
  Observer& observer_;
  const Cancel& cancel_;
  TrimReport report_;
  std::vector<GuestDisk> disks_;
  std::vector<std::unique_ptr<FileDisk>> files_;
  guest::Inspection inspection_;
  std::vector<Space> spaces_;          // one per volume
  std::vector<FileDisk::Plan> plans_;  // one per disk
};

Result<void> MetadataTrimming::inspect_disks() {
  for (const GuestDiskName& name : options_.disks) {
    ASSIGN_OR_RETURN(GuestDisk disk, inspect_disk(name, writes()));
    if (!disk.local)
      return fail(Error::invalid(
          disk.name + ": is not a local file: without --metadata, the appliance trims it"));
    disks_.push_back(std::move(disk));
  }
  return {};
}

Result<TrimmedDisk> MetadataTrimming::describe(size_t number) const {
  const qcow2::Disk& disk = files_[number]->disk();
  TrimmedDisk result;
  result.name = disks_[number].name;
  result.size = disk.size();
  result.before = file_size(disks_[number]);
  ASSIGN_OR_RETURN(result.table,
                   find_partition_table(disk.size(), [&](uint64_t at, std::span<std::byte> to) {
                     return disk.read(GuestOffset(at), to);
                   }));
  ASSIGN_OR_RETURN(const guest::Ranges data, files_[number]->data());
  result.data_before = data.total();
  return result;
}

Result<void> MetadataTrimming::open_disks() {
  for (const GuestDisk& disk : disks_) {
    observer_.step("Opening " + disk.name);
    warn_of_kept_data(disk, observer_);
    ASSIGN_OR_RETURN(auto file, FileDisk::open(disk, writes()));
    files_.push_back(std::move(file));
    ASSIGN_OR_RETURN(auto described, describe(files_.size() - 1));
    report_.disks.push_back(std::move(described));
  }
  report_.blank = std::all_of(report_.disks.begin(), report_.disks.end(),
                              [](const TrimmedDisk& it) { return it.data_before == 0; });
  return {};
}

Result<void> MetadataTrimming::inspect() {
  observer_.step("Reading the metadata of filesystems");
  std::vector<std::shared_ptr<const guest::ByteView>> views;
  views.reserve(files_.size());
  for (const auto& file : files_)
    views.push_back(std::make_shared<guest::ImageView>(file->disk(), views.size(), &cancel_));
  inspection_ = guest::inspect(views);
  if (cancel_.requested()) return fail(Error::cancelled());
  for (const Volume& volume : inspection_.volumes) spaces_.push_back(space_of(volume));
  RETURN_IF_ERROR(choose(options_, spaces_));
  return check_suspended();
}

Result<void> MetadataTrimming::check_suspended() const {
  const Volume* const volume = inspection_.suspended();
  if (!volume) return {};
  return fail(Error::unsupported(fmt::format(
      "{}: {}: when the guest resumes, it would rely on the old content of its disks: boot it and "
      "shut it down{}",
      volume->device, volume->why, volume->type == "ntfs" ? " with 'shutdown /s /t 0'" : "")));
}

Result<void> MetadataTrimming::make_plans() {
  for (size_t disk = 0; disk < files_.size(); ++disk) {
    guest::Ranges::Builder chosen;
    for (size_t i = 0; i < spaces_.size(); ++i)
      if (is_chosen(i))
        for (const guest::Range& range : inspection_.volumes[i].on_disks[disk].all())
          chosen.add(range.begin, range.end);
    ASSIGN_OR_RETURN(auto plan, files_[disk]->plan(chosen.take()));
    plans_.push_back(std::move(plan));
  }
  return {};
}

void MetadataTrimming::report_volumes() {
  for (size_t i = 0; i < spaces_.size(); ++i) {
    const Volume& volume = inspection_.volumes[i];
    TrimmedSpace result;
    result.device = volume.device;
    result.type = volume.type;
    result.label = volume.label;
    result.uuid = volume.uuid;
    result.size = volume.size;
    if (volume.verdict == Verdict::kFree)
      result.used = volume.size - std::min(volume.free, volume.size);
    if (is_chosen(i)) {
      result.outcome =
          spaces_[i].kind == Space::Kind::kFilesystem ? Outcome::kTrimmed : Outcome::kDiscarded;
      result.freed = 0;
      for (size_t disk = 0; disk < plans_.size(); ++disk)
        *result.freed += plans_[disk].data.within(volume.on_disks[disk]).total();
    } else {
      result.why = spaces_[i].left_alone;
      result.excluded = spaces_[i].excluded;
      result.advice = !result.excluded && wants_advice(volume);
      if (result.advice)
        observer_.warning(fmt::format("{}: is not trimmed: {}", result.device, result.why));
    }
    report_.spaces.push_back(std::move(result));
  }
  for (const std::string& doubt : inspection_.doubts) {
    observer_.warning(doubt + ": this disk is not trimmed");
    TrimmedSpace result;
    const size_t colon = doubt.find(": ");
    result.device = doubt.substr(0, colon);
    result.why = doubt.substr(colon + 2);
    result.outcome = Outcome::kFailed;
    report_.spaces.push_back(std::move(result));
  }
}

Result<void> MetadataTrimming::discard() {
  uint64_t total = 0;
  for (const FileDisk::Plan& plan : plans_) total += plan.discarded.total();
  uint64_t done = 0;
  observer_.progress(done, total);
  for (size_t i = 0; i < files_.size(); ++i) {
    if (plans_[i].discarded.empty()) continue;
    observer_.step("Discarding free space of " + disks_[i].name);
    RETURN_IF_ERROR(files_[i]->discard(plans_[i].discarded, cancel_));
    ASSIGN_OR_RETURN(const guest::Ranges data, files_[i]->data());
    report_.disks[i].data_after = data.total();
    done += plans_[i].discarded.total();
    observer_.progress(done, total);
  }
  return {};
}

Result<void> MetadataTrimming::close() {
  Result<void> closed;
  for (size_t i = 0; i < files_.size(); ++i) {
    if (!plans_[i].discarded.empty()) observer_.step("Closing " + disks_[i].name);
    auto result = files_[i]->close();
    if (closed) closed = std::move(result);
  }
  return closed;
}

Result<TrimReport> MetadataTrimming::run() {
  const auto start = std::chrono::steady_clock::now();
  report_.dry_run = options_.dry_run;
  report_.from_metadata = true;
  RETURN_IF_ERROR(inspect_disks());
  RETURN_IF_ERROR(open_disks());
  if (!report_.blank) RETURN_IF_ERROR(inspect());
  RETURN_IF_ERROR(make_plans());
  for (size_t i = 0; i < files_.size(); ++i)
    report_.disks[i].data_after = *report_.disks[i].data_before - plans_[i].data.total();
  if (writes()) {
    auto done = discard();
    // After an error, too, so that completed discards take effect.
    auto closed = close();
    if (done) done = std::move(closed);
    if (!done) return fail(with_state(std::move(done).error()));
  }
  report_volumes();
  files_.clear();
  for (size_t i = 0; i < disks_.size(); ++i)
    report_.disks[i].after = writes() ? file_size(disks_[i]) : report_.disks[i].before;
  report_.elapsed = std::chrono::steady_clock::now() - start;
  return std::move(report_);
}

}  // namespace

Result<TrimReport> trim_by_metadata(const TrimOptions& options, Observer& observer,
                                    const Cancel& cancel) {
  if (options.disks.empty()) return fail(Error::invalid("no disk is given"));
  return MetadataTrimming(options, observer, cancel).run();
}

}  // namespace vc::appliance
