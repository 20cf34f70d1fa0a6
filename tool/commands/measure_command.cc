#include "tool/commands/measure_command.h"

#include <fmt/format.h>

#include <array>
#include <vector>

#include "tool/commands/disk_use.h"
#include "tool/options/arguments.h"
#include "tool/options/bracketed_commands.h"
#include "tool/options/formats.h"
#include "tool/options/nbd_options.h"
#include "tool/options/servers.h"
#include "tool/report/compact_report.h"
#include "tool/report/measure_report.h"
#include "tool/terminal/progress_display.h"
#include "tool/terminal/signals.h"
#include "tool/text/json_text.h"
#include "tool/text/size_text.h"

namespace vc::tool {

namespace {

// Bytes to read for an estimate: a few seconds with a good codec.
constexpr uint64_t kBudget = 512 << 20;
// Same for one field of the table.
constexpr uint64_t kFieldBudget = 256 << 20;
constexpr std::array<unsigned, 6> kTableBits = {14, 15, 16, 17, 18, 20};

// Progress of one field, not shown: the table has its own progress.
class Quiet final : public Progress {
 public:
  void update(uint64_t /*done*/, uint64_t /*total*/) override {}
};

}  // namespace

const char* MeasureCommand::description() const {
  return "Compute the size of a copy of SRC with these options, without making the copy.\nSRC is "
         "as for virt-compact copy. Compressed sizes are estimated.";
}

void MeasureCommand::add_options(CLI::App& app) {
  app.add_option("SRC", source_);
  add_format_option(app, "-f,--format", options_.copy.source_format,
                    "format of SRC, qcow2 or raw; default: detected");
  add_format_option(app, "-O,--output-format", options_.copy.format,
                    "format of the copy: qcow2 (default), or raw");
  layout_.add_options(app);
  app.get_option("--profile")->group(kRareOptions);
  in_place_.add_options(app, layout_, "compute what virt-compact compact would gain");
  add_parsed_option(
      app, "--size", "N", options_.size,
      [](const std::string& value) -> Result<std::optional<uint64_t>> {
        ASSIGN_OR_RETURN(const uint64_t size, parse_size(value));
        return size;
      },
      "measure an empty disk of this size, instead of SRC");
  add_parsed_option(app, "-l,--snapshot", "NAME", options_.copy.snapshot, parse_snapshot_param,
                    "measure the disk at an internal snapshot");
  snapshots_.add_with(app, "measure a copy with the internal snapshots")->group(kRareOptions);
  snapshots_.add_drop(app)->group(kRareOptions);
  add_switch(app, "--bitmaps", bitmaps_, "measure a copy with the persistent bitmaps")
      ->group(kRareOptions);
  add_switch(app, "-U,--force-share", options_.copy.force_share,
             "read even if another process writes to SRC")
      ->group(kRareOptions);
  add_parsed_option(
      app, "--sample-size", "SIZE", sample_size_,
      [](const std::string& value) -> Result<std::optional<uint64_t>> {
        ASSIGN_OR_RETURN(const uint64_t size, parse_size(value));
        if (size == 0) return fail(Error::invalid("'0' is not a valid sample size"));
        return size;
      },
      "data to read for an estimate; default 512M")
      ->group(kRareOptions);
  add_retries_option(app, options_.copy.nbd)->group(kRareOptions);
  add_timeout_option(app, options_.copy.nbd.timeout)->group(kRareOptions);
  add_switch(app, "--exact", exactly_, "compress all data, for the exact size");
  add_switch(app, "--table", table_, "compare cluster sizes and codecs");
  add_output_option(app, json_, "human (the default) or json, with qemu-img's keys");
  add_switch(app, "--skip-free", options_.copy.skip_free, "leave out what the guest does not use");
  trust_.add_options(app, true);
  trust_.add_untrusted(app);
  trust_.add_key_option(app);
  names_.add_options(app, trust_.keys());
}

void MeasureCommand::check() const {
  layout_.check();
  trust_.check();
  snapshots_.check(false);
  in_place_.check(layout_, {"key", "untrusted", "limits", "json", "output"},
                  "no copy is measured: omit it");
  if (in_place_.in_place()) {
    if (source_.empty()) throw UsageError("SRC is missing");
    return;
  }
  if (snapshots_.given() && source_.empty())
    throw UsageError("--with-snapshots: an empty disk has no snapshots");
  if (bitmaps_ && source_.empty()) throw UsageError("--bitmaps: an empty disk has no bitmaps");
  if (source_.empty() && !options_.size) throw UsageError("SRC or --size is missing");
  if (!source_.empty() && options_.size) throw UsageError("--size and SRC exclude each other");
  if (options_.copy.skip_free && source_.empty())
    throw UsageError("--skip-free: an empty disk has no filesystems");
  if (options_.copy.skip_free && source_ == "-")
    throw UsageError("--skip-free: a pipe cannot be searched for free space: give a path");
  if (table_ && (options_.size || exactly_))
    throw UsageError("--table needs SRC: it estimates the size of data");
  if (table_ && options_.copy.format == qcow2::Format::kRaw)
    throw UsageError("--table needs QCOW2: a raw disk has neither clusters nor codecs");
  if (table_ && source_ == "-") throw UsageError("--table: a pipe cannot be read several times");
}

Result<int> MeasureCommand::measure_one(const Console& console, const Cancel& cancel) {
  options_.budget = options_.copy.compression && !exactly_ ? sample_size_.value_or(kBudget) : 0;
  ProgressDisplay progress(console.manner());
  const auto measured = inspect::measure(options_, progress, cancel);
  progress.finish();
  if (!measured) return fail(measured.error());
  if (json_) {
    RETURN_IF_ERROR(console.print(measure_report_json(*measured)));
  } else if (!console.manner().quiet) {
    RETURN_IF_ERROR(console.print(measure_report(*measured)));
  }
  return kSuccess;
}

Result<int> MeasureCommand::measure_table(const Console& console, const Cancel& cancel) {
  const std::array<std::optional<qcow2::CompressionType>, 3> codecs = {
      std::nullopt, qcow2::CompressionType::kDeflate, qcow2::CompressionType::kZstd};
  options_.budget = sample_size_.value_or(kFieldBudget);
  std::vector<MeasuredField> fields;
  ProgressDisplay progress(console.manner());
  progress.begin(Phase::kMeasure);
  Quiet quiet;
  for (const unsigned bits : kTableBits)
    for (const auto& codec : codecs) {
      inspect::MeasureOptions options = options_;
      options.copy.image.cluster_bits = bits;
      options.copy.compression.type = codec;
      options.copy.image.compression_type = codec;
      if (codec != options_.copy.compression.type) options.copy.compression.level = 0;
      ASSIGN_OR_RETURN(const auto measured, inspect::measure(options, quiet, cancel));
      fields.push_back({bits, codec, measured});
      progress.update(fields.size(), kTableBits.size() * codecs.size());
    }
  progress.finish();
  if (json_) {
    RETURN_IF_ERROR(console.print(measure_table_json(fields)));
  } else if (!console.manner().quiet) {
    RETURN_IF_ERROR(console.print(measure_table_text(fields)));
  }
  return kSuccess;
}

// Does a dry run of compact.
Result<int> MeasureCommand::measure_in_place(const Console& console) {
  source_ = plain_path(source_);
  RETURN_IF_ERROR(refuse_server(source_, "only files and block devices can be compacted in place",
                                "without --in-place, the size of a copy is measured"));
  RETURN_IF_ERROR(warn_of_disk_use(source_, console));
  RETURN_IF_ERROR(trust_.begin_reading(console, {source_}, failure_code()));
  qcow2::InPlaceOptions options;
  options.trust = trust_.trust();
  options.dry_run = true;
  in_place_.apply_to(layout_, false, options);
  Cancel cancel;
  const StopSignals signals(cancel);
  ProgressDisplay progress(console.manner());
  const auto summary = qcow2::compact_in_place(source_, options, progress, cancel);
  progress.finish();
  if (!summary) {
    if (summary.error().kind() == Error::Kind::kCancelled)
      return fail(Error::cancelled().with_context("the measurement is incomplete"));
    return fail(summary.error());
  }
  if (const std::string warning = warning_of_leaks(source_, *summary); !warning.empty())
    console.warning(warning);
  if (json_) {
    RETURN_IF_ERROR(console.print(json_text(compact_report_json(source_, *summary, true))));
  } else if (!console.manner().quiet) {
    RETURN_IF_ERROR(console.print(compact_report(source_, *summary, true)));
  }
  return kSuccess;
}

Result<int> MeasureCommand::run(const Console& console) {
  if (in_place_.in_place()) return measure_in_place(console);
  RETURN_IF_ERROR(names_.resolve(source_, options_.copy.source_format));
  if (options_.copy.skip_free) RETURN_IF_ERROR(warn_of_disk_use(source_, console));
  if (!options_.size) RETURN_IF_ERROR(trust_.begin_reading(console, {source_}, failure_code()));
  options_.copy.trust = trust_.trust();
  warn_of_images(console, options_.copy.trust, {source_});
  if (options_.copy.skip_free && options_.copy.force_share)
    console.warning(
        "--skip-free and -U: a running guest changes what is free: the figures are "
        "approximate");
  // In JSON, no format means raw, as in qemu-img, which rejects layout options without a format. In
  // text, all lines describe one image.
  options_.qemu_raw = json_ && !options_.copy.format && !layout_.given();
  options_.copy.source = source_;
  options_.copy.snapshots = snapshots_.choice(false);
  if (bitmaps_) options_.copy.bitmaps = copy::BitmapChoice::kAll;
  if (auto words = unfold_command(source_)) options_.copy.source_command = std::move(*words);
  RETURN_IF_ERROR(layout_.apply_to(options_.copy));
  RETURN_IF_ERROR(layout_.apply_encryption_to(names_.secrets(), options_.copy));
  // Nothing is written, encrypted or not.
  if (options_.copy.format == qcow2::Format::kRaw) options_.copy.image.encryption.decrypt = true;
  Cancel cancel;
  const StopSignals signals(cancel);
  auto done = table_ ? measure_table(console, cancel) : measure_one(console, cancel);
  if (!done && done.error().kind() == Error::Kind::kCancelled)
    return fail(Error::cancelled().with_context("the measurement is incomplete"));
  return done;
}

}  // namespace vc::tool
