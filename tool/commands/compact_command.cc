#include "tool/commands/compact_command.h"

#include <fmt/format.h>

#include "tool/commands/disk_use.h"
#include "tool/options/arguments.h"
#include "tool/options/layout_options.h"
#include "tool/options/qemu_names.h"
#include "tool/options/servers.h"
#include "tool/report/compact_report.h"
#include "tool/terminal/progress_display.h"
#include "tool/terminal/signals.h"
#include "tool/text/json_text.h"
#include "tool/text/size_text.h"

namespace vc::tool {

const char* CompactCommand::description() const {
  return "Make the file of a QCOW2 image as short as its content: move its end, in place,\n"
         "into free clusters. Keeps snapshots and bitmaps. Needs no space for a copy.";
}

void CompactCommand::add_options(CLI::App& app) {
  app.add_option("DISK", disk_);
  add_switch(app, "--shrink", shrink_, "move the end into free clusters: the default");
  add_switch(app, "--zeros", zeros_, "also free clusters of zeros: reads all data");
  add_switch(app, "--defragment", defragment_, "also order the data, and free zeros");
  add_switch(app, "-c,--compress", compress_, "also compress the data, where it gets smaller");
  add_parsed_option(
      app, "--compression", "TYPE", compression_,
      [](const std::string& value) -> Result<std::optional<qcow2::Compression>> {
        return parse_compression(value);
      },
      "compress at a level: zstd[:1-22] or zlib[:1-12]");
  add_parsed_option(
      app, "-m,--threads", "N", threads_,
      [](const std::string& value) -> Result<unsigned> {
        ASSIGN_OR_RETURN(const uint64_t count, parse_number(value, 0, 256));
        return static_cast<unsigned>(count);
      },
      "threads that read data; default: one per processor");
  add_switch(app, "--dry-run", dry_run_, "write nothing; print how short the file would be");
  add_output_option(app, json_, "the summary: human (the default) or json");
  trust_.add_key_option(app);
  metrics().add_option(app);
}

void CompactCommand::check() const {
  if (disk_.empty()) throw UsageError("DISK is missing");
  if (compression_ && !compression_->type)
    throw UsageError("--compression=none: compact does not decompress: omit it");
  if (threads_ > 0 && !compress_ && !compression_ && !zeros_ && !defragment_)
    throw UsageError("--threads: only --compress, --zeros and --defragment use several threads");
}

Result<void> CompactCommand::tell(const qcow2::InPlaceSummary& summary,
                                  const Console& console) const {
  if (json_) return console.print(json_text(compact_report_json(disk_, summary, dry_run_)));
  if (console.manner().quiet) return {};
  return console.print(compact_report(disk_, summary, dry_run_));
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
  options.zeros = zeros_;
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
  if (const std::string warning = warning_of_leaks(disk_, *summary); !warning.empty())
    console.warning(warning);
  if (compact_gain(*summary) == 0 && summary->moved == 0 && summary->leaks == 0 &&
      summary->zeros == 0)
    metrics().unchanged();
  RETURN_IF_ERROR(tell(*summary, console));
  if (summary->stopped)
    return fail(Error::cancelled().with_context(
        disk_ + ": consistent, but not as short as possible: run the command again to go on"));
  return kSuccess;
}

}  // namespace vc::tool
