#include "appliance/trim.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <optional>

#include "appliance/appliance.h"
#include "appliance/disk_server.h"
#include "appliance/space_trimmer.h"
#include "appliance/survey.h"

namespace vc::appliance {

namespace {

// One trim, from the start of the servers to the report.
class Trimming {
 public:
  Trimming(const TrimOptions& options, Observer& observer, const Cancel& cancel)
      : options_(options), observer_(observer), cancel_(cancel) {}

  Result<TrimReport> run();

 private:
  Result<void> start_servers();
  bool has_something_to_do();
  Result<void> work();
  Result<void> trim_spaces(const std::vector<Space>& spaces);
  Result<void> finish();
  void doubt_servers();
  // Ends the previous step, and begins the next.
  void begin(const char* name);
  void end_step();
  // The data on each disk, as its server reports it. nullopt if the server reports none.
  using Maps = std::vector<std::optional<DataMap>>;
  Result<Maps> maps();
  // Returns bytes. Both maps of the disk must be known.
  uint64_t freed(size_t disk, const Maps& before, const Maps& after) const;
  // Returns the sum of all disks. nullopt if any map is unknown.
  std::optional<uint64_t> freed(const Maps& before, const Maps& after) const;

  using Clock = std::chrono::steady_clock;

  const TrimOptions& options_;
  Observer& observer_;
  const Cancel& cancel_;
  Clock::time_point step_start_;
  TrimReport report_;
  std::vector<GuestDisk> disks_;
  // Declared before the appliance, which must end before them.
  std::vector<std::unique_ptr<DiskServer>> servers_;
  Maps first_maps_;
  Maps maps_;  // current state
  std::unique_ptr<Appliance> appliance_;
};

void Trimming::begin(const char* name) {
  end_step();
  report_.steps.push_back({name, {}});
  step_start_ = Clock::now();
}

void Trimming::end_step() {
  if (!report_.steps.empty()) report_.steps.back().elapsed = Clock::now() - step_start_;
}

Result<void> Trimming::start_servers() {
  begin("open");
  for (const GuestDiskName& name : options_.disks) {
    ASSIGN_OR_RETURN(GuestDisk disk, inspect_disk(name, !options_.dry_run));
    disks_.push_back(std::move(disk));
  }
  for (const GuestDisk& disk : disks_) {
    if (!options_.overlay) {
      observer_.step("Opening " + disk.name);
      warn_of_kept_data(disk, observer_);
    }
    const auto access = options_.dry_run ? DiskServer::Access::kScratch : DiskServer::Access::kTrim;
    ASSIGN_OR_RETURN(auto server, DiskServer::start(disk, access, cancel_));
    TrimmedDisk trimmed;
    trimmed.name = disk.name;
    trimmed.size = server->size();
    trimmed.before = file_size(disk);
    ASSIGN_OR_RETURN(trimmed.table, server->partition_table());
    if (options_.sector_size && *options_.sector_size != trimmed.table.sector_size) {
      trimmed.table = {};
      trimmed.table.sector_size = *options_.sector_size;
    }
    if (trimmed.table.kind == PartitionTable::Kind::kDamagedGpt)
      observer_.warning(
          fmt::format("{}: this disk is not trimmed: {}", disk.name, trimmed.table.problem));
    report_.disks.push_back(std::move(trimmed));
    servers_.push_back(std::move(server));
  }
  ASSIGN_OR_RETURN(maps_, maps());
  first_maps_ = maps_;
  for (size_t i = 0; i < maps_.size(); ++i)
    if (maps_[i]) report_.disks[i].data_before = maps_[i]->bytes();
  return {};
}

Result<Trimming::Maps> Trimming::maps() {
  Maps all;
  for (const auto& server : servers_) {
    // The flush also sends held small trims.
    if (!options_.dry_run) RETURN_IF_ERROR(server->flush());
    ASSIGN_OR_RETURN(auto map, server->data());
    all.push_back(std::move(map));
  }
  return all;
}

uint64_t Trimming::freed(size_t disk, const Maps& before, const Maps& after) const {
  // A dry run's scratch file has smaller granules than the disk.
  if (options_.dry_run)
    return before[disk]->without(after[disk]->widened(servers_[disk]->granularity())).bytes();
  const uint64_t then = before[disk]->bytes();
  const uint64_t now = after[disk]->bytes();
  return then > now ? then - now : 0;
}

std::optional<uint64_t> Trimming::freed(const Maps& before, const Maps& after) const {
  uint64_t sum = 0;
  for (size_t i = 0; i < before.size(); ++i) {
    if (!before[i] || !after[i]) return std::nullopt;
    sum += freed(i, before, after);
  }
  return sum;
}

Result<void> Trimming::trim_spaces(const std::vector<Space>& spaces) {
  uint64_t total = 0;
  for (const Space& space : spaces)
    if (space.left_alone.empty()) total += space.size;
  uint64_t done = 0;
  observer_.progress(done, total);
  SpaceTrimmer trimmer(*appliance_, options_, report_.dropped);
  for (const Space& space : spaces) {
    if (!space.left_alone.empty()) {
      TrimmedSpace result = named(space);
      result.why = space.left_alone;
      result.excluded = space.excluded;
      result.advice = space.must_stay;
      if (result.advice)
        observer_.warning(fmt::format("{}: is not trimmed: {}", result.device, result.why));
      report_.spaces.push_back(std::move(result));
      continue;
    }
    const bool whole = space.kind != Space::Kind::kFilesystem;
    observer_.step(fmt::format("{} {}", whole ? "Discarding" : "Trimming",
                               space.kind == Space::Kind::kVolumeGroup
                                   ? "the free space of " + space.device
                                   : space.device));
    ASSIGN_OR_RETURN(auto result, trimmer.trim(space, [&](uint64_t filled) {
      observer_.progress(done + std::min(filled, space.size), total);
    }));
    ASSIGN_OR_RETURN(auto now, maps());
    result.freed = freed(maps_, now);
    // A dry run does not fill free space: returns the upper limit.
    if (options_.dry_run && result.outcome == TrimmedSpace::Outcome::kZeroFilled)
      result.freed = result.used ? std::optional(space.size - std::min(space.size, *result.used))
                                 : std::nullopt;
    maps_ = std::move(now);
    if (result.advice)
      observer_.warning(fmt::format("{}: is not trimmed: {}", result.device, result.why));
    if (result.outcome == TrimmedSpace::Outcome::kFailed)
      observer_.warning(fmt::format("{}: {}", result.device, result.why));
    report_.spaces.push_back(std::move(result));
    done += space.size;
    observer_.progress(done, total);
  }
  return {};
}

bool Trimming::has_something_to_do() {
  report_.blank = std::all_of(maps_.begin(), maps_.end(),
                              [](const auto& map) { return map && map->bytes() == 0; });
  return !report_.blank &&
         std::any_of(report_.disks.begin(), report_.disks.end(), [](const TrimmedDisk& it) {
           return it.table.kind != PartitionTable::Kind::kDamagedGpt;
         });
}

Result<void> Trimming::work() {
  std::vector<Appliance::Drive> drives;
  drives.reserve(servers_.size());
  for (size_t i = 0; i < servers_.size(); ++i)
    drives.push_back(
        {servers_[i]->socket(), false, report_.disks[i].table.sector_size, servers_[i]->note()});
  begin("boot");
  observer_.step("Booting the appliance");
  ASSIGN_OR_RETURN(appliance_, Appliance::launch(drives, observer_, cancel_));
  report_.emulated = appliance_->emulated();
  begin("search");
  observer_.step("Looking for filesystems");
  ASSIGN_OR_RETURN(const auto opened, open_encrypted(*appliance_, options_.passphrases, observer_));
  ASSIGN_OR_RETURN(auto spaces, survey(*appliance_, opened));
  RETURN_IF_ERROR(choose(options_, spaces));
  RETURN_IF_ERROR(check_shut_down(*appliance_, options_.drop, spaces));
  begin("trim");
  return trim_spaces(spaces);
}

Result<void> Trimming::finish() {
  if (appliance_) {
    begin("shut down");
    observer_.step("Shutting the appliance down");
    RETURN_IF_ERROR(appliance_->shut_down());
    appliance_.reset();
  }
  // Asks the servers for the final state: libguestfs's success is no proof.
  ASSIGN_OR_RETURN(const auto last, maps());
  for (size_t i = 0; i < last.size(); ++i) {
    if (!first_maps_[i] || !last[i]) continue;
    TrimmedDisk& disk = report_.disks[i];
    disk.data_after =
        options_.dry_run ? *disk.data_before - freed(i, first_maps_, last) : last[i]->bytes();
  }
  return {};
}

// Warns about servers that announce trims and ignore them (qemu-nbd can be set up so).
void Trimming::doubt_servers() {
  const bool trimmed =
      std::any_of(report_.spaces.begin(), report_.spaces.end(), [](const TrimmedSpace& it) {
        return it.outcome == TrimmedSpace::Outcome::kTrimmed ||
               it.outcome == TrimmedSpace::Outcome::kDiscarded;
      });
  for (size_t i = 0; i < disks_.size() && trimmed; ++i) {
    const TrimmedDisk& disk = report_.disks[i];
    if (!disks_[i].local && disk.data_before > 0 && disk.data_after == disk.data_before)
      observer_.warning(disk.name +
                        ": nothing was freed: the server may accept trims without discarding "
                        "anything (qemu-nbd needs --discard=unmap)");
  }
}

Result<TrimReport> Trimming::run() {
  const auto start = Clock::now();
  report_.dry_run = options_.dry_run;
  if (auto started = start_servers(); !started)
    return fail(explained(std::move(started).error(), servers_));
  auto done = has_something_to_do() ? work() : Result<void>{};
  if (done) {
    done = finish();
  } else if (appliance_) {
    // Tries to unmount the filesystems. That is impossible if the disk is gone.
    (void)appliance_->shut_down();
  }
  // Refers to the servers.
  appliance_.reset();
  begin("close");
  for (size_t i = 0; i < servers_.size(); ++i) {
    if (done && !options_.dry_run && !options_.overlay) observer_.step("Closing " + disks_[i].name);
    auto closed = servers_[i]->close();
    if (done && !closed) done = std::move(closed);
    if (!done) done = fail(servers_[i]->explained(std::move(done).error()));
    servers_[i].reset();
  }
  RETURN_IF_ERROR(done);
  for (size_t i = 0; i < disks_.size(); ++i)
    report_.disks[i].after = options_.dry_run ? report_.disks[i].before : file_size(disks_[i]);
  if (!options_.dry_run) doubt_servers();
  end_step();
  report_.elapsed = Clock::now() - start;
  return report_;
}

}  // namespace

Result<TrimReport> trim(const TrimOptions& options, Observer& observer, const Cancel& cancel) {
  if (options.disks.empty()) return fail(Error::invalid("no disk is given"));
  return Trimming(options, observer, cancel).run();
}

}  // namespace vc::appliance
