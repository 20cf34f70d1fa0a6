#include "tool/commands/compact_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/printable.h"
#include "tool/commands/disk_use.h"
#include "tool/options/arguments.h"
#include "tool/options/layout_options.h"
#include "tool/options/qemu_names.h"
#include "tool/options/servers.h"
#include "tool/terminal/progress_display.h"
#include "tool/terminal/signals.h"
#include "tool/text/json_text.h"
#include "tool/text/size_text.h"

namespace vc::tool {

namespace {

using nlohmann::ordered_json;

uint64_t gain(const qcow2::InPlaceSummary& summary) {
  return summary.before.length - std::min(summary.before.length, summary.after.length);
}

std::string report_json(const std::string& disk, const qcow2::InPlaceSummary& summary,
                        bool dry_run) {
  ordered_json json;
  json["filename"] = disk;
  json["virtual-size"] = summary.virtual_size;
  json["snapshots"] = summary.snapshots;
  json["leaks"] = summary.leaks;
  json["to-move"] = summary.to_move;
  json["misplaced"] = summary.misplaced;
  json["compressed"] = summary.compressed;
  json["not-moved"] = summary.fixed;
  json["before"] = {{"length", summary.before.length}, {"actual-size", summary.before.blocks}};
  if (dry_run) {
    json["dry-run"] = true;
    json["after"] = {{"length", summary.after.length}};
  } else {
    json["moved"] = summary.moved;
    json["stopped"] = summary.stopped;
    json["after"] = {{"length", summary.after.length}, {"actual-size", summary.after.blocks}};
  }
  json["seconds"] = summary.elapsed.count();
  return json_text(json);
}

std::string device_advice(const qcow2::InPlaceSummary& summary) {
  if (!summary.is_device) return "";
  return fmt::format(
      "  The device keeps its size. The image ends at {} bytes: the rest of the device is free\n"
      "  (a logical volume: lvreduce --size {}b).\n",
      summary.after.length, summary.after.length);
}

std::string headline(const std::string& disk, const qcow2::InPlaceSummary& summary, bool dry_run) {
  const std::string name = printable(disk);
  if (gain(summary) > 0)
    return fmt::format("{} {} {} shorter{}", name, dry_run ? "would be" : "is",
                       human_size(gain(summary)), summary.stopped ? " so far" : "");
  if (summary.misplaced == 0) return name + " has no free clusters to fill";
  if (summary.stopped) return name + " is not in order yet";
  return fmt::format("{} {} in the order of its guest", name, dry_run ? "would be" : "is");
}

std::string report(const std::string& disk, const qcow2::InPlaceSummary& summary, bool dry_run) {
  std::string text = headline(disk, summary, dry_run) + "\n\n";
  text += fmt::format("  {:<12} {:>9}  before {}\n", summary.is_device ? "end" : "length",
                      human_size(summary.after.length), human_size(summary.before.length));
  if (!dry_run && !summary.is_device)
    text += fmt::format("  {:<12} {:>9}  before {}\n", "on disk", human_size(summary.after.blocks),
                        human_size(summary.before.blocks));
  text += fmt::format("  {:<12} {:>9}{}\n", dry_run ? "to move" : "moved",
                      human_size(dry_run ? summary.to_move : summary.moved),
                      summary.has_data_file ? "  only tables: guest data is in another file" : "");
  if (summary.misplaced > 0)
    text += fmt::format("  {:<12} {:>9}{}\n", "out of order", human_size(summary.misplaced),
                        dry_run ? "" : "  before");
  if (summary.compressed > 0)
    text += fmt::format("  {:<12} {:>9}\n", dry_run ? "to compress" : "compressed",
                        human_size(summary.compressed));
  if (summary.unordered > 0)
    text += fmt::format("  {:<12} {:>9}  compressed clusters, which stay where they are\n",
                        "not ordered", summary.unordered);
  if (summary.fixed > 0)
    text += fmt::format("  {:<12} {:>9}  clusters, whose refcounts are too high\n", "not moved",
                        summary.fixed);
  if (summary.leaks > 0)
    text +=
        fmt::format("  {:<12} {:>9}\n", dry_run ? "leaks to free" : "leaks freed", summary.leaks);
  text += device_advice(summary);
  return text + fmt::format("\n  {} disk in {:.1f} s\n{}", human_size(summary.virtual_size),
                            summary.elapsed.count(), dry_run ? "Nothing was written.\n" : "");
}

}  // namespace

const char* CompactCommand::description() const {
  return "Make the file of a QCOW2 image as short as its content: move its end, in place,\n"
         "into free clusters. Keeps snapshots and bitmaps. Needs no space for a copy.";
}

void CompactCommand::add_options(CLI::App& app) {
  app.add_option("DISK", disk_);
  add_switch(app, "--shrink", shrink_, "move the end into free clusters: the default");
  add_switch(app, "--defragment", defragment_, "also order the data as the guest sees it");
  add_switch(app, "-c,--compress", compress_, "also compress the data, where it gets smaller");
  add_parsed_option(
      app, "--compression", "TYPE", compression_,
      [](const std::string& value) -> Result<std::optional<qcow2::Compression>> {
        return parse_compression(value);
      },
      "codec of DISK and level: zstd[:1-22] or zlib[:1-12]");
  add_parsed_option(
      app, "-m,--threads", "N", threads_,
      [](const std::string& value) -> Result<unsigned> {
        ASSIGN_OR_RETURN(const uint64_t count, parse_number(value, 0, 256));
        return static_cast<unsigned>(count);
      },
      "number of threads; default: one per processor");
  add_switch(app, "--dry-run", dry_run_, "write nothing; print how short the file would be");
  add_output_option(app, json_, "the summary: human (the default) or json");
  trust_.add_key_option(app);
  metrics().add_option(app);
}

void CompactCommand::check() const {
  if (disk_.empty()) throw UsageError("DISK is missing");
  if (compression_ && !compression_->type)
    throw UsageError("--compression=none: compact does not decompress: omit it");
  if (threads_ > 0 && !compress_ && !compression_)
    throw UsageError("--threads: only --compress uses several threads");
}

Result<void> CompactCommand::tell(const qcow2::InPlaceSummary& summary,
                                  const Console& console) const {
  if (json_) return console.print(report_json(disk_, summary, dry_run_));
  if (console.manner().quiet) return {};
  return console.print(report(disk_, summary, dry_run_));
}

Result<int> CompactCommand::run(const Console& console) {
  disk_ = plain_path(disk_);
  RETURN_IF_ERROR(refuse_server(disk_, "only files and block devices can be compacted in place",
                                "virt-compact copy writes the disk of a server into a fresh "
                                "image"));
  if (dry_run_) {
    RETURN_IF_ERROR(warn_of_disk_use(disk_, console));
  } else {
    RETURN_IF_ERROR(check_disk_use(disk_, console));
  }
  metrics().add(disk_);
  Cancel cancel;
  const StopSignals signals(cancel);
  ProgressDisplay progress(console.manner());
  qcow2::InPlaceOptions options;
  options.trust = trust_.trust();
  options.dry_run = dry_run_;
  options.defragment = defragment_;
  options.compress = compress_ || compression_;
  if (compression_) options.compression = *compression_;
  options.threads = threads_;
  const auto summary = qcow2::compact_in_place(disk_, options, progress, cancel);
  progress.finish();
  if (!summary) {
    if (summary.error().kind() == Error::Kind::kCancelled)
      return fail(Error::cancelled().with_context(disk_ + ": unchanged"));
    return fail(summary.error());
  }
  if (summary->leaks_left > 0)
    console.warning(fmt::format(
        "{}: {} leaked cluster{} stay where they are, since a table of zeros may have referred to "
        "them: see virt-compact check, whose option --lossy frees them",
        disk_, summary->leaks_left, summary->leaks_left == 1 ? "" : "s"));
  if (gain(*summary) == 0 && summary->moved == 0 && summary->leaks == 0) metrics().unchanged();
  RETURN_IF_ERROR(tell(*summary, console));
  if (summary->stopped)
    return fail(Error::cancelled().with_context(
        disk_ + ": consistent, but not as short as possible: run the command again to go on"));
  return kSuccess;
}

}  // namespace vc::tool
