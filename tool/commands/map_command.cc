#include "tool/commands/map_command.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <span>

#include "base/retry.h"
#include "storage/output_file.h"
#include "tool/options/arguments.h"
#include "tool/options/bracketed_commands.h"
#include "tool/options/formats.h"
#include "tool/options/mistaken_names.h"
#include "tool/options/nbd_options.h"
#include "tool/report/map_report.h"
#include "tool/terminal/progress_display.h"
#include "tool/terminal/signals.h"
#include "tool/text/size_text.h"

namespace vc::tool {

using inspect::MapEntry;
using qcow2::Extent;

const char* MapCommand::description() const {
  return "Show which parts of the disk in the qcow2 or raw image FILE are data or zeros,\nand "
         "which image of the backing chain stores them, and where.  --svg draws a\npicture.  FILE "
         "may be an NBD URI, or [ COMMAND... ].";
}

void MapCommand::add_options(CLI::App& app) {
  app.add_option("FILE", file_);
  add_format_option(app, "-f,--format", format_, "format of FILE, qcow2 or raw; default: detected");
  add_parsed_option(
      app, "-s,--start-offset", "OFFSET", start_,
      [](const std::string& text) { return parse_size(text); }, "begin at this offset of the disk");
  add_parsed_option(
      app, "-l,--max-length", "LENGTH", length_,
      [](const std::string& text) -> Result<std::optional<uint64_t>> { return parse_size(text); },
      "map at most this many bytes; default: to the end");
  add_output_option(app, json_, "human (the default) or json, with qemu-img's keys");
  options_of_ = &app;
  add_parsed_option(
      app, "--svg", "PICTURE", svg_,
      [](const std::string& text) -> Result<std::string> { return text; },
      "draw the place of data in the file and in the guest");
  add_switch(app, "--force", force_, "replace PICTURE if it exists");
  add_timeout_option(app, nbd_.timeout)->group(kRareOptions);
  add_switch(app, "-U,--force-share", force_share_, "read even if another process writes to FILE");
  trust_.add_options(app, true);
  trust_.add_untrusted(app);
  trust_.add_key_option(app);
  names_.add_options(app, trust_.keys());
}

void MapCommand::check() const {
  if (file_.empty()) throw UsageError("FILE is missing");
  if (file_ == "-") throw UsageError("a pipe cannot be mapped: give the path of the image");
  if (!svg_.empty() && (start_ != 0 || length_))
    throw UsageError("--svg draws the whole disk: omit -s and -l");
  refuse_option_like(svg_, "PICTURE", "virt-compact copy -o", "-f");
  if (force_ && svg_.empty()) throw UsageError("--force needs --svg");
  trust_.check();
}

Result<void> MapCommand::begin(const Console& console) const {
  if (!trust_.untrusted()) return {};
  RETURN_IF_ERROR(check_is_file(file_));
  ConfinementPlan plan{{file_}, {}, {}};
  if (!svg_.empty()) plan.folders.push_back(Directory::parent_of(svg_));
  return trust_.begin(console, plan, failure_code());
}

Result<int> MapCommand::run(const Console& console) {
  RETURN_IF_ERROR(names_.resolve(file_, format_));
  RETURN_IF_ERROR(begin(console));
  Cancel cancel;
  const StopSignals signals(cancel);
  const Stop stop(cancel);
  copy::SourceOptions options;
  options.name = file_;
  options.command = unfold_command(file_).value_or(std::vector<std::string>{});
  options.format = format_;
  options.force_share = force_share_;
  options.trust = trust_.trust();
  options.metadata_only = true;
  warn_of_images(console, options.trust, {file_});
  options.nbd.tuning = nbd_;
  ASSIGN_OR_RETURN(const auto source, copy::open_source(options, stop));
  stop_ = &stop;
  if (!svg_.empty()) RETURN_IF_ERROR(write_picture(console, *source));
  if (svg_.empty() || has_output_option(*options_of_)) RETURN_IF_ERROR(write_map(console, *source));
  return kSuccess;
}

// Handles Ctrl-C and reports progress.
Result<void> MapCommand::went_on(ProgressDisplay& progress, uint64_t done, uint64_t total) const {
  if (stop_->requested()) return fail(Error::cancelled());
  progress.update(done, total);
  return {};
}

Result<void> MapCommand::write_map(const Console& console, copy::Source& source) {
  const uint64_t size = source.size();
  const uint64_t start = std::min(start_, size);
  const uint64_t end = start + std::min(length_.value_or(size), size - start);
  inspect::DiskMap map(source);
  MapReport report(console, json_);
  ProgressDisplay progress(console.manner());
  RETURN_IF_ERROR(report.begin());
  RETURN_IF_ERROR(map.walk(
      start, end,
      [&](const Extent& extent) {
        return went_on(progress, extent.guest.value() - start, end - start);
      },
      [&](const MapEntry& entry) { return report.add(entry, map.file_of(entry.depth)); }));
  // qemu-img prints an entry for an empty range, too.
  if (start == end && json_) {
    MapEntry nothing;
    nothing.start = start_;
    RETURN_IF_ERROR(report.add(nothing, file_));
  }
  return report.end();
}

// Returns an error if the picture would replace a file of the source.
Result<void> MapCommand::check_picture(const copy::Source& source) const {
  struct stat picture {};
  if (retry(::stat, svg_.c_str(), &picture) != 0) return {};
  for (const auto& file : source.files())
    if (file->identity() == FileStorage::Identity{picture.st_dev, picture.st_ino})
      return fail(
          Error::invalid(fmt::format("{}: is a file of the image: draw into another file", svg_)));
  return {};
}

Result<void> MapCommand::write_picture(const Console& console, copy::Source& source) {
  MapPicture::Subject subject;
  subject.title = unfold_command(file_) ? source.name() : file_;
  subject.disk_size = source.size();
  const qcow2::Image* const image = source.image();
  if (image) {
    ASSIGN_OR_RETURN(subject.file_size, image->data_storage().size());
    subject.cluster_size = image->geometry().cluster_size();
  } else {
    subject.file_size = subject.disk_size;
  }
  RETURN_IF_ERROR(check_picture(source));
  ASSIGN_OR_RETURN(const auto file, OutputFile::create(svg_, force_));

  MapPicture picture(subject);
  ProgressDisplay progress(console.manner());
  inspect::DiskMap map(source);
  const auto on_extent = [&](const Extent& extent) -> Result<void> {
    picture.add(extent);
    return went_on(progress, extent.guest.value(), subject.disk_size);
  };
  RETURN_IF_ERROR(map.walk(0, subject.disk_size, on_extent, {}));
  if (image && !image->header().has_data_file()) {
    qcow2::SurveyOptions options;
    options.host = [&](HostCluster first, uint64_t count, qcow2::HostUse use) {
      picture.add(first, count, use);
    };
    ASSIGN_OR_RETURN(const auto survey,
                     qcow2::survey(image->storage(), image->header(), image->snapshots(), options));
    picture.set(survey);
  }
  progress.finish();
  const std::string svg = picture.svg();
  RETURN_IF_ERROR(file->write(HostOffset(0), std::as_bytes(std::span(svg))));
  RETURN_IF_ERROR(file->commit());
  return {};
}

}  // namespace vc::tool
