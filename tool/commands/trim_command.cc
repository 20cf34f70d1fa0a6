#include "tool/commands/trim_command.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include "appliance/metadata_trim.h"
#include "base/retry.h"
#include "qcow2/read/overlay_search.h"
#include "tool/commands/disk_use.h"
#include "tool/options/arguments.h"
#include "tool/options/bracketed_commands.h"
#include "tool/options/formats.h"
#include "tool/options/nbd_options.h"
#include "tool/options/qemu_names.h"
#include "tool/options/sparsify_options.h"
#include "tool/options/trimming_options.h"
#include "tool/report/trim_report.h"
#include "tool/terminal/signals.h"
#include "tool/terminal/step_lines.h"

namespace vc::tool {

const char* TrimCommand::description() const {
  return "Boot a small appliance on the disks of a guest that is shut down, and free all\nblocks "
         "that its filesystems do not use. DISK: an image or an NBD URI.\nWith --metadata, read "
         "the filesystems' metadata instead, and boot nothing.";
}

void TrimCommand::add_options(CLI::App& app) {
  app.add_option("DISK...", disks_);
  add_format_option(app, "-f,--format", format_, "format of DISK, qcow2 or raw; default: detected");
  add_trimming_options(app, options_, trust_.keys());
  add_switch(app, "--metadata", metadata_, "boot nothing: read free space from metadata");
  add_switch(app, "--dry-run", options_.dry_run, "write nothing; print what would be freed");
  trust_.add_options(app, false);
  timeout_option_ = add_timeout_option(app, timeout_);
  add_output_option(app, json_, "the report: human (the default) or json");
  add_sparsify_options(app);
  metrics().add_option(app);
}

void TrimCommand::add_sparsify_options(CLI::App& app) {
  add_switch(app, "--in-place", in_place_, "accepted: trimming is always in place")
      ->group(kRareOptions);
  constexpr const char* kOptimize = "applies to a copy: use virt-compact optimize";
  add_refused_option(app, "--compress", false, kOptimize);
  add_refused_option(app, "--convert", true, kOptimize);
  add_refused_option(app, "-o", true, kOptimize);
  add_refused_option(app, "--tmp", true, "no temporary space is needed: omit the option");
  refuse_zero_option(app);
}

void TrimCommand::check() const {
  if (disks_.empty()) throw UsageError("DISK is missing");
  if (!metadata_) return;
  const auto refuse = [](const char* option, const char* why) {
    throw UsageError(fmt::format("{} and --metadata: {}", option, why));
  };
  if (!options_.passphrases.empty())
    refuse("--key", "only the appliance can open encrypted volumes");
  if (options_.drop.any()) refuse("--drop", "only the appliance can change files of the guest");
  if (options_.sector_size)
    refuse("--sector-size",
           "without the appliance, the sector size is that of the partition table");
  if (timeout_option_->count() > 0)
    refuse("--timeout", "DISK must be a file, and files have no timeout");
}

// For a file: returns an error if a machine or an overlay uses it. An overlay reads missing data
// from the disk. A trim, or a replayed journal, would change this data.
Result<void> TrimCommand::check_use(const std::string& disk, const Console& console) const {
  struct stat status {};
  if (retry(::stat, disk.c_str(), &status) != 0) return {};
  RETURN_IF_ERROR(check_disk_use(disk, console));
  const auto overlay = qcow2::find_overlay(disk, disks_);
  if (!overlay) return {};
  return fail(
      Error::invalid(fmt::format("{}: is the backing file of {}, whose content would change: trim "
                                 "that image instead, or flatten it first (virt-compact flatten)",
                                 disk, *overlay)));
}

Result<int> TrimCommand::run(const Console& console) {
  for (std::string& disk : disks_) disk = plain_path(disk);
  for (const std::string& disk : disks_) {
    auto command = unfold_command(disk);
    options_.disks.push_back(
        {disk, command.value_or(std::vector<std::string>{}), format_, {}, trust_.trust().names});
    options_.disks.back().timeout = timeout_;
    options_.disks.back().keys = trust_.trust().keys;
  }
  for (const std::string& disk : disks_) metrics().add(disk);
  if (!options_.dry_run)
    for (const std::string& disk : disks_) RETURN_IF_ERROR(check_use(disk, console));
  Cancel cancel;
  const StopSignals signals(cancel);
  StepLines lines(console, json_);
  const auto report = metadata_ ? appliance::trim_by_metadata(options_, lines, cancel)
                                : appliance::trim(options_, lines, cancel);
  lines.finish();
  if (!report) {
    // After a cancellation, deallocated blocks stay deallocated; the guest's data has not changed.
    if (report.error().kind() == Error::Kind::kCancelled)
      return fail(Error::cancelled().with_context("trimming is incomplete"));
    return fail(report.error());
  }
  if (json_) {
    RETURN_IF_ERROR(console.print(trim_report_json(*report)));
  } else if (!console.manner().quiet) {
    RETURN_IF_ERROR(console.print("\n" + trim_report(*report, console.palette())));
  }
  // Shown even with -q, which hides the report and the warnings.
  if (const std::string why = report->why_nothing(); !why.empty())
    console.error(fmt::format("nothing was trimmed: {}", why));
  return report->complete() ? kSuccess : kFailure;
}

}  // namespace vc::tool
