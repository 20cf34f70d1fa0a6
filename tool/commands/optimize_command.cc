#include "tool/commands/optimize_command.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tool/in_place/in_place_run.h"
#include "tool/live/live_run.h"
#include "tool/options/formats.h"
#include "tool/options/mistaken_names.h"
#include "tool/options/optimize_words.h"
#include "tool/options/qemu_names.h"
#include "tool/options/reflink_option.h"
#include "tool/options/sparsify_options.h"
#include "tool/options/trimming_options.h"
#include "tool/report/optimize_report.h"
#include "tool/terminal/signals.h"
#include "tool/terminal/step_display.h"
#include "tool/text/json_text.h"
#include "tool/text/size_text.h"

namespace vc::tool {

using nlohmann::ordered_json;

namespace {

Result<void> print_json(const Console& console, const ordered_json& json) {
  return console.print(json_text(json));
}

}  // namespace

const char* OptimizeCommand::description() const {
  return "Make the disks of guests that are shut down small, ordered and healthy: check,\ncopy the "
         "data in use, verify, swap. The old disk is kept, and never written to.";
}

void OptimizeCommand::add_options(CLI::App& app) {
  const auto text = [](const std::string& value) -> Result<std::string> { return value; };
  app.add_option("DISK...", disks_);
  add_output(app);
  layout_.add_options(app, "--options");
  add_object_option(app, secrets_);
  in_place_.add_options(app, layout_, "change DISK itself, without space for a copy");
  for (const char* const name : {"--options", "--profile"})
    app.get_option(name)->group(kRareOptions);
  add_format_option(app, "-O,--output-format", options_.output_format,
                    "format of OUT, qcow2 or raw; default: as DISK")
      ->group(kRareOptions);
  trust_.add_options(app, false, base_, "keep BASE as the backing file of the result")
      ->group(kRareOptions);
  add_parsed_option(app, "-F,--backing-format", "FMT", base_format_, text, "format of BASE")
      ->group(kRareOptions);
  add_parsed_option(
      app, "-S,--sparse", "SIZE", options_.copy.sparse_size,
      [](const std::string& value) {
        return parse_power_of_two(value, 512, 2 << 20, "from 512 to 2M");
      },
      "zeros of this size become holes in a raw result")
      ->group(kRareOptions);
  add_trim(app);
  add_trimming_options(app, options_.trimming, trust_.keys());
  for (const char* const name : {"--filesystems", "--ignore"})
    app.get_option(name)->group(kRareOptions);
  add_switch(app, "--keep-going", options_.keep_going, "copy a guest even if it cannot be trimmed")
      ->group(kRareOptions);
  add_reflink_option(app, options_.copy.reflink)->group(kRareOptions);
  add_switch(app, "--repair", options_.repair, "repair a damaged image first, in place");
  snapshots_.add_drop(app)->group(kRareOptions);
  add_switch(app, "--drop-bitmaps", options_.drop_bitmaps, "do not copy persistent bitmaps")
      ->group(kRareOptions);
  add_parsed_option(app, "--backup", "SUFFIX", suffix_, text,
                    "suffix of the old disk's name; default: .bak")
      ->group(kRareOptions);
  add_switch(app, "--no-backup", no_backup_, "remove the old disk");
  add_format_option(app, "-f,--format", options_.format,
                    "format of DISK, qcow2 or raw; default: detected")
      ->group(kRareOptions);
  add_switch(app, "--dry-run", options_.dry_run, "change nothing; print the expected gain");
  add_parsed_option(app, "--minimum-gain", "GAIN", limit_, parse_gain,
                    "do not change DISK for less: SIZE or PERCENT%")
      ->group(kRareOptions);
  add_switch(app, "--force", options_.overwrite, "replace OUT; rewrite DISK even if it is compact")
      ->group(kRareOptions);
  add_parsed_option(
      app, "-m,--threads", "N", options_.copy.threads,
      [](const std::string& value) -> Result<unsigned> {
        ASSIGN_OR_RETURN(const uint64_t count, parse_number(value, 0, 256));
        return static_cast<unsigned>(count);
      },
      "number of threads; default: one per processor")
      ->group(kRareOptions);
  add_parsed_option(
      app, "--rate-limit", "SIZE", options_.copy.rate_limit,
      [](const std::string& value) -> Result<uint64_t> {
        ASSIGN_OR_RETURN(const uint64_t rate, parse_size(value));
        if (rate == 0) return fail(Error::invalid("'0' is not a valid rate"));
        return rate;
      },
      "read at most SIZE bytes a second")
      ->group(kRareOptions);
  add_switch(app, "--json", json_, "print the report as JSON");
  add_live_options(app);
  add_sparsify_options(app);
  metrics().add_option(app);
}

void OptimizeCommand::add_live_options(CLI::App& app) {
  add_switch(app, "--live", live_, "optimize while the guest runs; DISK: DOMAIN[:TARGET]");
  app.add_option("--connect", live_options_.connection,
                 "libvirt of the domain; default: those of this machine")
      ->type_name("URI")
      ->take_last()
      ->group(kRareOptions);
  app.add_flag_callback(
         "--fstrim", [this] { live_options_.trim = fstrim_given_ = true; },
         "let the guest's agent trim its filesystems first: the default")
      ->group(kRareOptions);
  app.add_flag_callback(
         "--no-fstrim",
         [this] {
           live_options_.trim = false;
           fstrim_given_ = true;
         },
         "do not ask the guest's agent")
      ->group(kRareOptions);
  app.add_option("--qmp", live_options_.qmp_socket,
                 "with --live: monitor socket of a QEMU without libvirt")
      ->type_name("SOCKET")
      ->take_last()
      ->group(kRareOptions);
  app.add_option("--node", live_options_.node, "with --qmp: node of the disk, instead of DISK")
      ->type_name("NODE")
      ->take_last()
      ->group(kRareOptions);
  add_parsed_option(app, "--reserve", "SIZE", reserve_, parse_size,
                    "undo the run if less is free; default: 256M")
      ->group(kRareOptions);
  add_switch(app, "--resume", resume_, "complete a run of --live that was stopped")
      ->group(kRareOptions);
}

// "--output=json" sets the report's format, as with every other command.
void OptimizeCommand::add_output(CLI::App& app) {
  app.add_option_function<std::vector<std::string>>(
         "-o,--output",
         [this](const std::vector<std::string>& values) {
           for (const std::string& value : values) {
             if (value == "json")
               json_ = true;
             else if (value == "human")
               human_ = true;
             else
               options_.output = value;
           }
         },
         "write the result to OUT, and do not change DISK")
      ->type_name("OUT")
      ->allow_extra_args(false)
      ->take_all();
}

void OptimizeCommand::add_sparsify_options(CLI::App& app) {
  add_parsed_option(app, "--tmp", "DIR", options_.overlay_folder, parse_temporary_folder,
                    "folder of the overlay; default: that of DISK")
      ->group(kRareOptions);
  add_format_option(app, "--convert", options_.output_format, "")->group(kHiddenOptions);
  refuse_zero_option(app);
}

void OptimizeCommand::check() const {
  if (disks_.empty() && (resume_ || live_options_.node.empty()))
    throw UsageError("DISK is missing");
  if (json_ && human_) throw UsageError("--output=human contradicts --json");
  layout_.check();
  snapshots_.check(true);
  check_in_place();
  if (layout_.size())
    throw UsageError("size=: a disk keeps its size: change it with qemu-img resize");
  if (!options_.output.empty() && disks_.size() > 1)
    throw UsageError("--output: one OUT cannot take several disks");
  if (!options_.output.empty())
    refuse_option_like(options_.output, "OUT", "--options", "--output-format");
  if (limit_.said && options_.overwrite)
    throw UsageError("--minimum-gain and --force exclude each other");
  if (limit_.said && !options_.output.empty())
    throw UsageError("--minimum-gain and --output: OUT is always written");
  if (options_.output_format && options_.output.empty())
    throw UsageError(
        "--output-format: needs --output, because the configuration of the virtual machine names "
        "the format of DISK");
  check_live();
  check_trimming();
  if (no_backup_ && suffix_ != ".bak")
    throw UsageError("--backup and --no-backup exclude each other");
}

void OptimizeCommand::check_live() const {
  if (live_ && resume_) throw UsageError("--live and --resume exclude each other");
  if (resume_ && disks_.size() > 1) throw UsageError("--resume takes one DISK");
  if (!live_ && !resume_) {
    if (!live_options_.connection.empty() || fstrim_given_ || reserve_)
      throw UsageError("--connect, --fstrim, --no-fstrim and --reserve need --live or --resume");
    if (!live_options_.qmp_socket.empty() || !live_options_.node.empty())
      throw UsageError("--qmp and --node need --live");
    return;
  }
  check_qmp();
  if (!options_.output.empty() || options_.output_format)
    throw UsageError("--live replaces the disk under its guest: it takes no --output");
  if (options_.repair)
    throw UsageError("--live: a disk in use cannot be repaired: shut the guest down first");
  if (options_.trimming_by != optimize::Trimming::kAuto || trims_with_options())
    throw UsageError(
        "--live: the agent of the guest trims it (--fstrim): omit --trim, --key, --drop, "
        "--filesystems, --ignore, --sector-size and --keep-going");
  if (options_.format == qcow2::Format::kRaw) throw UsageError("--live needs a QCOW2 disk");
  if (!live_options_.qmp_socket.empty() && (!base_.empty() || !base_format_.empty()))
    throw UsageError("--qmp: a disk with a backing file must be optimized offline");
  if (resume_ && options_.dry_run) throw UsageError("--resume and --dry-run exclude each other");
}

void OptimizeCommand::check_qmp() const {
  if (live_options_.qmp_socket.empty()) {
    if (!live_options_.node.empty()) throw UsageError("--node needs --qmp");
    return;
  }
  if (!live_options_.connection.empty()) throw UsageError("--qmp and --connect exclude each other");
  if (resume_ && !live_options_.node.empty())
    throw UsageError("--resume finds the disk by its name: omit --node");
  if (disks_.size() + (live_options_.node.empty() ? 0 : 1) != 1)
    throw UsageError("--qmp takes one disk: DISK or --node");
  if (fstrim_given_)
    throw UsageError("--qmp: run fstrim in the guest before: omit --fstrim and --no-fstrim");
}

bool OptimizeCommand::trims_with_options() const {
  const auto& trimming = options_.trimming;
  const auto& drop = trimming.drop;
  return options_.keep_going || trimming.sector_size || !trimming.passphrases.empty() ||
         !trimming.filesystems.empty() || !trimming.ignore.empty() || drop.pagefile ||
         drop.swapfile || drop.hiberfile || drop.shadows || drop.swap;
}

// "--no-trim" is the older name of --trim=none.
void OptimizeCommand::add_trim(CLI::App& app) {
  add_parsed_option(app, "--trim", "WAY", options_.trimming_by, parse_trimming,
                    "find free space by: auto, metadata, appliance, none");
  app.add_flag_callback(
         "--no-trim", [this] { options_.trimming_by = optimize::Trimming::kNone; },
         "same as --trim=none: copy unused data, too")
      ->group(kRareOptions);
}

void OptimizeCommand::check_trimming() const {
  const auto& trimming = options_.trimming;
  const auto& drop = trimming.drop;
  const bool drops_any =
      drop.pagefile || drop.swapfile || drop.hiberfile || drop.shadows || drop.swap;
  switch (options_.trimming_by) {
    case optimize::Trimming::kNone:
      if (!trimming.passphrases.empty() || !trimming.filesystems.empty() ||
          !trimming.ignore.empty() || drops_any)
        throw UsageError(
            "--key, --drop, --filesystems and --ignore have no effect with --trim=none: omit them");
      return;
    case optimize::Trimming::kMetadata:
      if (!trimming.passphrases.empty() || trimming.sector_size || drop.shadows)
        throw UsageError(
            "--key, --sector-size and --drop shadows need the appliance, which --trim=metadata "
            "does not boot");
      return;
    case optimize::Trimming::kAuto:
    case optimize::Trimming::kAppliance:
      return;
  }
}

void OptimizeCommand::check_in_place() const {
  if (in_place_.in_place() && live_)
    throw UsageError(
        "--live and --in-place: a disk in use cannot be compacted in place: shut the guest down "
        "first, and omit --live");
  in_place_.check(layout_,
                  {"trim", "no-trim", "key", "filesystems", "ignore", "drop", "sector-size",
                   "keep-going", "repair", "format", "dry-run", "threads", "json", "output",
                   "backing", "data-file", "metrics"},
                  "DISK itself is changed, without a copy and without a backup: omit it");
  if (!in_place_.in_place()) return;
  if (!options_.output.empty())
    throw UsageError("--output and --in-place: DISK itself is changed, without a copy: omit OUT");
  if (!base_.empty())
    throw UsageError("--backing and --in-place: DISK keeps its backing file: omit BASE");
  if (options_.format == qcow2::Format::kRaw)
    throw UsageError("--format=raw and --in-place: only QCOW2 images have clusters to move");
  if (options_.copy.threads > 0 && !layout_.compresses() && !in_place_.reads_data())
    throw UsageError(
        "--threads and --in-place: only --compress, --zeros and --defragment use several threads");
}

Result<int> OptimizeCommand::run_in_place(const Console& console) {
  for (const std::string& disk : disks_) RETURN_IF_ERROR(refuse_stopped_live_run(disk));
  qcow2::InPlaceOptions levels;
  in_place_.apply_to(layout_, false, levels);
  levels.threads = options_.copy.threads;
  options_.copy.trust = trust_.trust();
  options_.others = disks_;
  return tool::run_in_place(console, disks_, options_, levels, json_, metrics());
}

Result<int> OptimizeCommand::run(const Console& console) {
  if (!live_)
    for (std::string& disk : disks_) disk = plain_path(disk);
  if (in_place_.in_place()) {
    RETURN_IF_ERROR(check_disks(disks_, DiskKinds::kFilesAndDevices));
    return run_in_place(console);
  }
  options_.output = plain_path(options_.output);
  RETURN_IF_ERROR(layout_.apply_to(options_.copy));
  RETURN_IF_ERROR(layout_.apply_encryption_to(secrets_, options_.copy));
  RETURN_IF_ERROR(resolve_backing(base_, base_format_, options_.copy.image));
  if (const CopyProfile* const it = layout_.profile())
    console.remark(fmt::format("{}: {}", it->name, it->description));
  if (!live_ && !resume_) {
    RETURN_IF_ERROR(check_disks(disks_, DiskKinds::kFiles));
    for (const std::string& disk : disks_) RETURN_IF_ERROR(refuse_stopped_live_run(disk));
  }
  options_.copy.trust = trust_.trust();
  options_.copy.snapshots = snapshots_.choice(true);
  options_.keep_compression = !layout_.say_compression();
  // The default limit does not apply if the user wants a new layout, or the end of a run.
  if (!options_.overwrite && (limit_.said || (!layout_.given() && !resume_)))
    options_.limit = limit_;
  options_.others = disks_;
  options_.backup_suffix = no_backup_ ? std::nullopt : std::optional(suffix_);
  if (live_ || resume_) {
    const copy::ImageOptions& image = options_.copy.image;
    if (image.encryption.decrypt || image.encryption.luks || !image.data_file.empty())
      return fail(Error::invalid(
          "--live: the guest cannot move to an image that is encrypted, or needs another file"));
    live_options_.disks = disks_;
    live_options_.optimize = options_;
    if (reserve_) live_options_.reserve = *reserve_;
    return resume_ ? complete_live(console, disks_.front(), live_options_, json_, LiveEnd::kForward,
                                   metrics())
                   : run_live(console, live_options_, json_, metrics());
  }
  for (const std::string& disk : disks_) {
    if (options_.output.empty())
      metrics().add(disk);
    else
      metrics().add_new(disk, options_.output);
  }
  Cancel cancel;
  const StopSignals signals(cancel);
  ordered_json json;
  json["disks"] = ordered_json::array();
  size_t failed = 0;
  uint64_t before = 0;
  uint64_t after = 0;
  for (const std::string& disk : disks_) {
    options_.disk = disk;
    metrics().begin(options_.output.empty() ? disk : options_.output);
    StepDisplay display(console, json_);
    const auto report = optimize::optimize(options_, display, display, cancel);
    display.finish();
    metrics().end(options_.output.empty() ? disk : options_.output, report.has_value(),
                  report && !report->compact);
    if (!report) {
      if (report.error().kind() == Error::Kind::kCancelled) {
        const char* const state = options_.repair ? ": not optimized" : ": unchanged";
        if (json_) {
          json["disks"].push_back({{"disk", disk}, {"error", report.error().message()}});
          json["failed"] = failed + 1;
          RETURN_IF_ERROR(print_json(console, json));
        }
        return fail(Error::cancelled().with_context(disk + state));
      }
      if (disks_.size() == 1 && !json_) return fail(report.error());
      console.error(report.error().message());
      json["disks"].push_back({{"disk", disk}, {"error", report.error().message()}});
      ++failed;
      continue;
    }
    before += report->before.file.blocks;
    after += report->after.file.blocks;
    if (json_)
      json["disks"].push_back(optimize_report_json(disk, *report));
    else if (!console.manner().quiet)
      RETURN_IF_ERROR(console.print("\n" + optimize_report(disk, *report, console.palette())));
  }
  if (json_) {
    json["failed"] = failed;
    RETURN_IF_ERROR(print_json(console, json));
  } else if (disks_.size() > 1 && !console.manner().quiet) {
    RETURN_IF_ERROR(console.print(
        fmt::format("\n{} of {} disks: {} before, {} after{}\n", disks_.size() - failed,
                    disks_.size(), human_size(before), human_size(after),
                    failed == 0 ? std::string() : fmt::format("; {} failed", failed))));
  }
  return failed == 0 ? kSuccess : kFailure;
}

}  // namespace vc::tool
