#include "tool/commands/space_command.h"

#include <fmt/format.h>

#include <memory>
#include <utility>

#include "copy/source/source_view.h"
#include "tool/commands/disk_use.h"
#include "tool/options/arguments.h"
#include "tool/options/bracketed_commands.h"
#include "tool/options/formats.h"
#include "tool/options/nbd_options.h"
#include "tool/terminal/signals.h"

namespace vc::tool {

const char* SpaceCommand::description() const {
  return "Show the free space of the filesystems on a guest's disks, and how much of it\nthe "
         "images store. Only metadata is read; nothing is booted or written.";
}

void SpaceCommand::add_options(CLI::App& app) {
  app.add_option("DISK...", disks_);
  add_format_option(app, "-f,--format", format_, "format of DISK, qcow2 or raw; default: detected");
  add_switch(app, "-U,--force-share", force_share_,
             "read even if a running guest writes to the disks");
  add_output_option(app, json_, "human (the default) or json");
  add_retries_option(app, nbd_)->group(kRareOptions);
  add_timeout_option(app, nbd_.timeout)->group(kRareOptions);
  trust_.add_options(app, true);
  trust_.add_untrusted(app);
  trust_.add_key_option(app);
  names_.add_options(app, trust_.keys());
}

void SpaceCommand::check() const {
  if (disks_.empty()) throw UsageError("DISK is missing");
  for (const std::string& disk : disks_)
    if (disk == "-") throw UsageError("a pipe cannot be searched: give the path of the image");
  trust_.check();
}

Result<std::unique_ptr<copy::Source>> SpaceCommand::open(const std::string& disk,
                                                         std::optional<qcow2::Format> format,
                                                         const Stop& stop) const {
  copy::SourceOptions options;
  options.name = disk;
  options.command = unfold_command(disk).value_or(std::vector<std::string>{});
  options.format = format;
  options.force_share = force_share_;
  options.trust = trust_.trust();
  options.nbd.tuning = nbd_;
  options.nbd.tuning.connections = 1;
  return copy::open_source(options, stop);
}

Result<int> SpaceCommand::run(const Console& console) {
  std::vector<std::optional<qcow2::Format>> formats(disks_.size(), format_);
  for (size_t i = 0; i < disks_.size(); ++i) RETURN_IF_ERROR(names_.resolve(disks_[i], formats[i]));
  SpaceReport report;
  report.approximate = force_share_;
  for (const std::string& disk : disks_) {
    ASSIGN_OR_RETURN(const bool is_in_use, warn_of_disk_use(disk, console));
    report.approximate = report.approximate || is_in_use;
  }
  RETURN_IF_ERROR(trust_.begin_reading(console, disks_, failure_code()));
  warn_of_images(console, trust_.trust(), disks_);
  Cancel cancel;
  const StopSignals signals(cancel);
  const Stop stop(cancel);
  std::vector<std::unique_ptr<copy::Source>> sources;
  std::vector<std::shared_ptr<const guest::ByteView>> views;
  for (size_t i = 0; i < disks_.size(); ++i) {
    ASSIGN_OR_RETURN(auto source, open(disks_[i], formats[i], stop));
    sources.push_back(std::move(source));
    views.push_back(std::make_shared<copy::SourceView>(*sources.back(), views.size(), cancel));
  }
  report.inspection = guest::inspect(views);
  if (stop.requested()) return fail(Error::cancelled());
  for (size_t i = 0; i < sources.size(); ++i) {
    copy::Source& source = *sources[i];
    const guest::Ranges free = report.inspection.free_on(i);
    ASSIGN_OR_RETURN(const uint64_t data, copy::data_within(source, free, cancel));
    report.disks.push_back({source.name(), source.size(), free.total(), data});
  }
  for (const guest::Volume& volume : report.inspection.volumes) {
    uint64_t sum = 0;
    for (size_t i = 0; i < volume.on_disks.size(); ++i) {
      ASSIGN_OR_RETURN(const uint64_t data,
                       copy::data_within(*sources[i], volume.on_disks[i], cancel));
      sum += data;
    }
    report.free_data.push_back(sum);
  }
  if (console.manner().quiet && !json_) return kSuccess;
  RETURN_IF_ERROR(
      console.print(json_ ? space_report_json(report) : space_report(report, console.palette())));
  return kSuccess;
}

}  // namespace vc::tool
