#include "optimize/in_place.h"

#include <fmt/format.h>

#include <cerrno>
#include <memory>
#include <utility>

#include "appliance/file_disk.h"
#include "copy/source/local_source.h"
#include "libvirt/running_domains.h"
#include "optimize/disk_repair.h"
#include "optimize/image_check.h"
#include "optimize/plan_lines.h"
#include "optimize/step_log.h"
#include "qcow2/read/overlay_search.h"

namespace vc::optimize {

namespace {

using Clock = std::chrono::steady_clock;

std::vector<ByteRange> byte_ranges(const guest::Ranges& ranges) {
  std::vector<ByteRange> bytes;
  for (const guest::Range& it : ranges.all()) bytes.push_back({it.begin, it.end});
  return bytes;
}

class InPlaceRun {
 public:
  InPlaceRun(const OptimizeOptions& options, const qcow2::InPlaceOptions& levels,
             appliance::Observer& observer, Progress& progress, const Cancel& cancel)
      : options_(options),
        levels_(levels),
        observer_(observer),
        progress_(progress),
        cancel_(cancel) {}

  Result<InPlaceReport> run() {
    RETURN_IF_ERROR(open());
    auto done = is_trimmed() ? trim() : Result<void>{};
    if (done) done = compact();
    if (!done && done.error().kind() == Error::Kind::kCancelled && has_written_) {
      report_.stopped = true;
      done = {};
    }
    RETURN_IF_ERROR(std::move(done));
    if (!options_.dry_run) RETURN_IF_ERROR(measure(disk(), report_.run.after, kDevices));
    steps_.end();
    report_.run.elapsed = Clock::now() - start_;
    finish_summary();
    return std::move(report_);
  }

 private:
  static constexpr Devices kDevices = Devices::kAccepted;

  const std::string& disk() const { return options_.disk; }
  bool is_trimmed() const { return options_.trimming_by != Trimming::kNone; }
  bool boots_for_all() const { return options_.trimming_by == Trimming::kAppliance; }

  // Refuses what cannot be optimized in place, before anything is written.
  Result<void> open() {
    steps_.begin("open", "Opening " + disk());
    report_.run.dry_run = options_.dry_run;
    report_.run.plan.trimming = options_.trimming_by;
    report_.run.result = disk();
    ASSIGN_OR_RETURN(const auto remarks, libvirt::check_unused(disk()));
    for (const std::string& remark : remarks) observer_.warning(remark);
    RETURN_IF_ERROR(measure(disk(), report_.run.before, kDevices));
    if (options_.repair && !options_.dry_run) {
      ASSIGN_OR_RETURN(const bool repaired,
                       repair_disk(options_, disk(), steps_, observer_, cancel_, true));
      has_written_ = repaired;
    }
    RETURN_IF_ERROR(qcow2::require_compactable(disk(), levels_));
    steps_.begin("check", "Checking the image");
    FileSize before = report_.run.before.file;
    RETURN_IF_ERROR(
        check_image(disk(), qcow2::Format::kQcow2, report_.run.before, cancel_, kDevices));
    report_.run.before.file = before;
    return is_trimmed() ? check_overlays() : Result<void>{};
  }

  Result<void> check_overlays() const {
    const auto overlay = qcow2::find_overlay(disk(), options_.others);
    if (!overlay) return {};
    return fail(Error::invalid(
        fmt::format("{}: is the backing file of {}, whose content would change: use --trim=none, "
                    "which keeps its content, or flatten that image first (virt-compact flatten)",
                    disk(), *overlay)));
  }

  Result<void> trim() {
    auto done = discard_known();
    if (done && report_.run.plan.boots && !options_.dry_run) done = trim_in_appliance();
    if (done || !options_.keep_going || done.error().kind() == Error::Kind::kCancelled) return done;
    observer_.warning(
        fmt::format("{}: the guest is not trimmed: {}", disk(), done.error().message()));
    return {};
  }

  appliance::GuestDiskName name() const {
    appliance::GuestDiskName name{{disk(), {}, qcow2::Format::kQcow2}, {}, {}};
    name.names = options_.copy.trust.names;
    name.keys = options_.copy.trust.keys;
    return name;
  }

  // Discards what the metadata of the filesystems call free. Holds the lock from before they are
  // read.
  Result<void> discard_known() {
    FreeSpacePlan& plan = report_.run.plan;
    if (boots_for_all()) {
      plan.boots = true;
      plan.why = "as requested";
      if (!options_.dry_run) return {};
    }
    steps_.begin("free space", "Reading the free space of the filesystems");
    ASSIGN_OR_RETURN(const appliance::GuestDisk opened,
                     appliance::inspect_disk(name(), !options_.dry_run));
    appliance::warn_of_kept_data(opened, observer_);
    ASSIGN_OR_RETURN(const auto file, appliance::FileDisk::open(opened, !options_.dry_run));
    RETURN_IF_ERROR(read_free_space(*file));
    tell_plan(plan, disk(), observer_, true);
    if (!plan.unused) return {};
    ASSIGN_OR_RETURN(const auto found, file->plan(*plan.unused));
    report_.discarded = found.data.total();
    if (options_.dry_run) {
      levels_.discarded = byte_ranges(found.discarded);
      return {};
    }
    if (found.discarded.empty()) return {};
    steps_.begin("discard", "Discarding the free space");
    has_written_ = true;
    auto done = file->discard(found.discarded, cancel_);
    // After a stop, too, so that completed discards take effect.
    auto closed = file->close();
    if (done) done = std::move(closed);
    return with_context(std::move(done),
                        disk() + ": trimming is incomplete, and the guest's files are unchanged");
  }

  // Makes the plan. In a dry run, that of the metadata stands for that of the appliance.
  Result<void> read_free_space(const appliance::FileDisk& file) {
    copy::LocalSource::Options how;
    how.format = qcow2::Format::kQcow2;
    how.trust = options_.copy.trust;
    how.force_share = true;  // `file` has the lock
    ASSIGN_OR_RETURN(const auto source, copy::LocalSource::open(disk(), how));
    if (source->files().front()->identity() != file.identity())
      return fail(Error::invalid(disk() + ": was replaced meanwhile"));
    appliance::TrimOptions trimming = options_.trimming;
    Trimming way = options_.trimming_by;
    if (boots_for_all()) {
      trimming.passphrases.clear();
      trimming.drop = {};
      trimming.sector_size.reset();
      way = Trimming::kMetadata;
    }
    auto plan = plan_free_space(*source, way, trimming, cancel_);
    if (!plan) {
      report_.run.plan.failed = plan.error().message();
      return fail(std::move(plan).error());
    }
    if (boots_for_all()) {
      plan->boots = true;
      plan->why = report_.run.plan.why;
      plan->trimming = options_.trimming_by;
    }
    report_.run.plan = std::move(*plan);
    return {};
  }

  Result<void> trim_in_appliance() {
    steps_.begin("trim", "Trimming the guest in the appliance");
    has_written_ = true;
    appliance::TrimOptions trimming = options_.trimming;
    trimming.known = report_.run.plan.known_devices();
    trimming.disks = {name()};
    ASSIGN_OR_RETURN(report_.run.trimmed, appliance::trim(trimming, observer_, cancel_));
    if (const std::string why = report_.run.trimmed->why_nothing(); !why.empty())
      observer_.warning(fmt::format("{}: nothing was trimmed: {}", disk(), why));
    for (const auto& space : report_.run.trimmed->spaces)
      if (space.outcome == appliance::TrimmedSpace::Outcome::kFailed)
        observer_.warning(fmt::format("{}: not trimmed: {}", space.device, space.why));
    return {};
  }

  Result<void> compact() {
    steps_.begin("compact", options_.dry_run ? "Computing the length of the file"
                                             : "Moving the data within the file");
    auto compacted = qcow2::compact_in_place(disk(), levels_, progress_, cancel_);
    if (!compacted) return fail(std::move(compacted).error());
    report_.compaction = *compacted;
    report_.stopped = compacted->stopped;
    return {};
  }

  // Makes the figures those of the whole run. A device keeps its size: its figures are those of the
  // image on it.
  void finish_summary() {
    qcow2::InPlaceSummary& summary = report_.compaction;
    if (!summary.is_device) summary.before = report_.run.before.file;
    if (!summary.is_device && !options_.dry_run) summary.after = report_.run.after.file;
    summary.stopped = report_.stopped;
    summary.elapsed = report_.run.elapsed;
    report_.run.virtual_size = summary.virtual_size;
  }

  const OptimizeOptions& options_;
  qcow2::InPlaceOptions levels_;
  appliance::Observer& observer_;
  Progress& progress_;
  const Cancel& cancel_;
  const Clock::time_point start_ = Clock::now();
  InPlaceReport report_;
  StepLog steps_{report_.run, observer_};
  bool has_written_ = false;
};

}  // namespace

Result<InPlaceReport> optimize_in_place(const OptimizeOptions& options,
                                        const qcow2::InPlaceOptions& levels,
                                        appliance::Observer& observer, Progress& progress,
                                        const Cancel& cancel) {
  qcow2::InPlaceOptions how = levels;
  how.trust = options.copy.trust;
  how.dry_run = options.dry_run;
  how.repair_by = "--repair";
  return InPlaceRun(options, how, observer, progress, cancel).run();
}

}  // namespace vc::optimize
