#include "tool/commands/flatten_command.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/printable.h"
#include "copy/copier.h"
#include "inspect/image_info.h"
#include "qcow2/write/flatten.h"
#include "tool/commands/copy_run.h"
#include "tool/options/arguments.h"
#include "tool/options/formats.h"
#include "tool/options/mistaken_names.h"
#include "tool/options/place_names.h"
#include "tool/options/qemu_names.h"
#include "tool/options/reflink_option.h"
#include "tool/options/servers.h"
#include "tool/report/copy_report.h"
#include "tool/terminal/progress_display.h"
#include "tool/terminal/signals.h"
#include "tool/text/json_text.h"
#include "tool/text/salvaging.h"
#include "tool/text/size_text.h"

namespace vc::tool {

using nlohmann::ordered_json;

namespace {

std::string dry_report(const std::string& overlay, const qcow2::FlattenSummary& summary) {
  return fmt::format(
      "{} would no longer need {}\n\n"
      "  {:<12}{:>10}  to write, {} of zeros left out\n\n"
      "  {} disk in {:.1f} s\nNothing was written.\n",
      printable(overlay), printable(summary.backing_file), "from it", human_size(summary.written),
      human_size(summary.zeros), human_size(summary.virtual_size), summary.elapsed.count());
}

std::string report(const std::string& overlay, const qcow2::FlattenSummary& summary) {
  return fmt::format(
      "{} no longer needs {}\n\n"
      "  {:<12} {:>9}  written, {} of zeros left out\n"
      "  {:<12} {:>9}  before {}\n"
      "  {:<12} {:>9}  before {}\n\n"
      "  {} disk in {:.1f} s\n",
      printable(overlay), printable(summary.backing_file), "from it", human_size(summary.written),
      human_size(summary.zeros), "on disk", human_size(summary.after.blocks),
      human_size(summary.before.blocks), "length", human_size(summary.after.length),
      human_size(summary.before.length), human_size(summary.virtual_size), summary.elapsed.count());
}

std::string report_json(const std::string& overlay, const qcow2::FlattenSummary& summary,
                        bool dry_run) {
  ordered_json json;
  json["filename"] = overlay;
  json["dropped-backing-filename"] = summary.backing_file;
  json["virtual-size"] = summary.virtual_size;
  json["written"] = summary.written;
  json["zeros"] = summary.zeros;
  json["before"] = {{"length", summary.before.length}, {"actual-size", summary.before.blocks}};
  if (dry_run)
    json["dry-run"] = true;
  else
    json["after"] = {{"length", summary.after.length}, {"actual-size", summary.after.blocks}};
  json["seconds"] = summary.elapsed.count();
  return json_text(json);
}

}  // namespace

const char* FlattenCommand::description() const {
  return "Merge an overlay and its backing files into one image: DST, a fresh image, or\nwith "
         "--in-place OVERLAY itself.  Backing files are only read.";
}

void FlattenCommand::add_options(CLI::App& app) {
  app.add_option("OVERLAY", overlay_);
  app.add_option("[DST]", destination_);
  add_switch(app, "--in-place", in_place_, "write the missing data into OVERLAY itself");
  add_format_option(app, "-f,--format", format_, "format of OVERLAY; default: detected");
  add_switch(app, "-U,--force-share", force_share_,
             "read even if another process writes to OVERLAY");
  add_switch(app, "--salvage", salvage_, "with DST: flatten what can be read");
  add_switch(app, "--drop-bitmaps", drop_bitmaps_, "with DST: do not copy persistent bitmaps");
  snapshots_.add_drop(app);
  add_reflink_option(app, reflink_);
  add_switch(app, "--force", force_, "replace DST if it exists");
  add_switch(app, "--dry-run", dry_run_, "write nothing; print what would be written");
  add_output_option(app, json_, "the summary: human (the default) or json");
  trust_.add_options(app, false);
  trust_.add_key_option(app);
  metrics().add_option(app);
}

void FlattenCommand::check() const {
  if (overlay_.empty()) throw UsageError("OVERLAY is missing");
  if (in_place_ && !destination_.empty()) throw UsageError("DST and --in-place exclude each other");
  if (!in_place_ && destination_.empty())
    throw UsageError("DST is missing (or --in-place, to change OVERLAY itself)");
  refuse_option_like(destination_, "DST", "virt-compact copy -o", "virt-compact copy -O");
  if (in_place_ && salvage_) throw UsageError("--salvage needs DST: a damaged image is only read");
  if (in_place_ && drop_bitmaps_) throw UsageError("--drop-bitmaps needs DST");
  snapshots_.check(true);
  if (in_place_ && snapshots_.given())
    throw UsageError(
        "--drop-snapshots needs DST: virt-compact snapshot -d deletes the snapshots of OVERLAY");
  if (in_place_ && reflink_) throw UsageError("--reflink needs DST");
  if (in_place_ && force_) throw UsageError("--force needs DST");
  if (in_place_ && force_share_)
    throw UsageError("--force-share: an image that another process writes to cannot be changed");
}

// A salvage reads only the active disk.
Result<void> FlattenCommand::choose_snapshots(copy::CopyOptions& options,
                                              const Console& console) const {
  options.snapshots = snapshots_.choice(true);
  if (!salvage_) return {};
  if (options.snapshots && !options.snapshots->dropped.empty())
    return fail(Error::invalid("--salvage leaves out all snapshots: use --drop-snapshots"));
  options.snapshots.reset();
  inspect::InfoOptions look;
  look.format = format_;
  look.force_share = force_share_;
  look.survey = false;
  look.trust = trust_.trust();
  const auto source = inspect::read_image_info(overlay_, look);
  if (source && !source->snapshots.empty() && !snapshots_.drops_all())
    console.warning(overlay_ +
                    ": its internal snapshots are not salvaged: save them with virt-compact copy "
                    "--salvage --snapshot NAME");
  return {};
}

Result<int> FlattenCommand::to_destination(const Console& console) const {
  if (const auto contradiction = name_contradiction(destination_, qcow2::Format::kQcow2))
    console.warning(*contradiction);
  copy::CopyOptions options;
  options.source = overlay_;
  options.source_format = format_;
  options.destination = destination_;
  options.overwrite = force_;
  options.force_share = force_share_;
  options.keep_compression = true;
  options.trust = trust_.trust();
  options.dry_run = dry_run_;
  options.salvage = salvage_;
  options.reflink = reflink_.value_or(options.reflink);
  if (!drop_bitmaps_) options.bitmaps = copy::BitmapChoice::kValid;
  RETURN_IF_ERROR(choose_snapshots(options, console));
  ASSIGN_OR_RETURN(const auto summary, run_copy(options, console));
  for (const std::string& reason : summary.bitmaps_left_out)
    console.warning(fmt::format("{}: {}", overlay_, reason));
  const int code = summary.lost.empty() ? kSuccess : kSalvaged;
  if (json_) {
    RETURN_IF_ERROR(console.print(copy_report_json(options, summary)));
    return code;
  }
  if (!summary.lost.empty()) console.tell(lost_ranges(options, summary));
  if (!console.manner().quiet)
    RETURN_IF_ERROR(console.print(copy_report(options, summary, console.palette())));
  return code;
}

Result<void> FlattenCommand::in_place(const Console& console) const {
  Cancel cancel;
  const StopSignals signals(cancel);
  ProgressDisplay progress(console.manner());
  const auto summary =
      dry_run_ ? qcow2::predict_flatten(overlay_, format_, trust_.trust(), progress, cancel)
               : qcow2::flatten(overlay_, format_, trust_.trust(), progress, cancel);
  progress.finish();
  if (!summary) return fail(advise_salvage(summary.error()));
  if (json_) return console.print(report_json(overlay_, *summary, dry_run_));
  if (console.manner().quiet) return {};
  return console.print(dry_run_ ? dry_report(overlay_, *summary) : report(overlay_, *summary));
}

Result<int> FlattenCommand::run(const Console& console) {
  overlay_ = plain_path(overlay_);
  destination_ = plain_path(destination_);
  if (in_place_)
    RETURN_IF_ERROR(refuse_server(overlay_, "only files can be flattened in place",
                                  "virt-compact copy writes the disk of a server into an image "
                                  "that needs no other"));
  if (in_place_)
    metrics().add(overlay_);
  else
    metrics().add_new(overlay_, destination_);
  if (!in_place_) return to_destination(console);
  RETURN_IF_ERROR(in_place(console));
  return kSuccess;
}

}  // namespace vc::tool
