#include "tool/nightly/disk_run.h"

#include <fmt/format.h>

#include <cerrno>

#include "live/live_optimize.h"
#include "optimize/optimize.h"
#include "tool/report/live_report.h"
#include "tool/report/optimize_report.h"
#include "tool/terminal/signals.h"
#include "tool/terminal/step_display.h"
#include "tool/text/size_text.h"

namespace vc::tool {

using live::LiveDiskReport;
using optimize::Gain;
using optimize::GainLimit;
using optimize::OptimizeReport;
using Outcome = NightlyEntry::Outcome;
using Why = NightlyEntry::Why;

namespace {

optimize::OptimizeOptions options_of(const NightlyDisk& disk, const DiskRunOptions& options) {
  const NightlySettings& settings = *disk.settings;
  optimize::OptimizeOptions how;
  how.disk = disk.path;
  how.format = disk.format;
  how.others = options.others;
  // A dry run has removed no old disk, and would find it.
  if (!settings.backup || options.dry_run) how.backup_suffix.reset();
  how.trimming_by = settings.trim;
  how.trimming.drop = settings.drop;
  how.keep_going = settings.keep_going;
  how.dry_run = options.dry_run;
  how.limit = settings.gain;
  how.keep_compression = !settings.compression;
  if (settings.compression) how.copy.compression = *settings.compression;
  how.copy.snapshots = copy::SnapshotChoice();
  how.copy.rate_limit = settings.rate_limit;
  how.copy.threads = settings.threads;
  return how;
}

std::string limit_text(const GainLimit& limit) {
  std::string text;
  if (limit.percent > 0 || !limit.bytes) text = fmt::format("{:.0f}%", limit.percent);
  if (limit.bytes) text += (text.empty() ? "" : " and ") + human_size(*limit.bytes);
  return text;
}

std::string gain_text(const Gain& gain) {
  return fmt::format("{} ({:.1f}%)", human_size(gain.saved()), gain.percent());
}

void set_small_gain(const std::optional<Gain>& gain, const GainLimit& limit, NightlyEntry& entry) {
  entry.outcome = Outcome::kSkipped;
  entry.why = Why::kGain;
  entry.text =
      gain ? fmt::format("would gain {}, and {} are wanted", gain_text(*gain), limit_text(limit))
           : "would gain too little";
}

void set_optimized(uint64_t before, uint64_t after, NightlyEntry& entry) {
  entry.outcome = Outcome::kOptimized;
  entry.before = before;
  entry.after = after;
  entry.text =
      fmt::format("{} -> {} in {:.1f} s", human_size(before), human_size(after), entry.seconds);
}

void set_error(const Error& error, NightlyEntry& entry) {
  entry.outcome = Outcome::kFailed;
  entry.text = error.message();
  if (error.kind() == Error::Kind::kSystem && error.errnum() == EBUSY) {
    entry.outcome = Outcome::kSkipped;
    entry.why = Why::kInUse;
  }
  if (error.kind() != Error::Kind::kCancelled) return;
  entry.outcome = Outcome::kStopped;
  entry.text = stop_signal() != 0 ? "by a signal: the disk is unchanged"
                                  : "at the end of the time window: the disk is unchanged";
}

void set_report(const OptimizeReport& report, const GainLimit& limit, NightlyEntry& entry) {
  entry.before = report.before.file.blocks;
  entry.seconds = report.elapsed.count();
  entry.details = optimize_report_json(entry.disk, report);
  if (report.compact) return set_small_gain(report.gain, limit, entry);
  if (!report.dry_run) {
    set_optimized(report.before.file.blocks, report.after.file.blocks, entry);
    entry.backup = report.backup;
    return;
  }
  entry.outcome = Outcome::kExpected;
  if (!report.gain) return;
  entry.after = report.gain->expected;
  entry.text = "would gain about " + gain_text(*report.gain);
}

void set_live_report(const LiveDiskReport& report, const GainLimit& limit, const Cancel& cancel,
                     NightlyEntry& entry) {
  if (report.before.file.blocks > 0) entry.before = report.before.file.blocks;
  entry.seconds = report.elapsed.count();
  entry.details = live_report_json(report);
  if (report.failed ||
      (report.outcome == LiveDiskReport::Outcome::kUndone && !report.error.empty())) {
    const bool stopped = !report.failed && cancel.requested();
    entry.outcome = stopped ? Outcome::kStopped : Outcome::kFailed;
    entry.text = live_error(report);
    return;
  }
  switch (report.outcome) {
    case LiveDiskReport::Outcome::kOptimized:
      set_optimized(report.before.file.blocks, report.after.file.blocks, entry);
      entry.backup = report.backup;
      return;
    case LiveDiskReport::Outcome::kCompact:
      return set_small_gain(report.gain, limit, entry);
    case LiveDiskReport::Outcome::kUndone:
    case LiveDiskReport::Outcome::kChecked:
      break;
  }
  entry.outcome = Outcome::kExpected;
  entry.text = "its guest runs, and it can be optimized; what it would gain is not known";
}

void optimize_live_disk(const NightlyDisk& disk, const DiskRunOptions& options,
                        StepDisplay& display, const Cancel& cancel, NightlyEntry& entry) {
  live::LiveOptions how;
  how.connection = disk.known->uri;
  how.disks = {disk.known->uuid + ":" + disk.target};
  how.trim = disk.settings->fstrim;
  how.optimize = options_of(disk, options);
  const auto reports = live::optimize_live(how, display, display, cancel);
  if (!reports && reports.error().kind() == Error::Kind::kUnsupported) {
    entry.why = Why::kRefused;
    entry.text = reports.error().message();
  } else if (!reports) {
    set_error(reports.error(), entry);
  } else {
    set_live_report(reports->front(), disk.settings->gain, cancel, entry);
  }
}

}  // namespace

void optimize_disk(const NightlyDisk& disk, bool runs, const DiskRunOptions& options,
                   const Console& console, const Cancel& cancel, NightlyEntry& entry) {
  StepDisplay display(console, options.json);
  if (runs) {
    optimize_live_disk(disk, options, display, cancel, entry);
  } else if (const auto report =
                 optimize::optimize(options_of(disk, options), display, display, cancel)) {
    set_report(*report, disk.settings->gain, entry);
  } else {
    set_error(report.error(), entry);
  }
  display.finish();
}

}  // namespace vc::tool
