#include "tool/commands/copy_command.h"

#include <fmt/format.h>

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <utility>

#include "base/retry.h"
#include "copy/unknown_extensions.h"
#include "inspect/image_info.h"
#include "nbd/uri.h"
#include "tool/commands/copy_run.h"
#include "tool/commands/disk_use.h"
#include "tool/options/arguments.h"
#include "tool/options/bracketed_commands.h"
#include "tool/options/formats.h"
#include "tool/options/mistaken_names.h"
#include "tool/options/nbd_options.h"
#include "tool/options/place_names.h"
#include "tool/options/reflink_option.h"
#include "tool/report/copy_report.h"
#include "tool/text/join_words.h"
#include "tool/text/salvaging.h"
#include "tool/text/size_text.h"

namespace vc::tool {

namespace {

constexpr unsigned kMaxThreads = 256;

auto parse_count(unsigned low, unsigned high) {
  return [low, high](const std::string& text) -> Result<unsigned> {
    ASSIGN_OR_RETURN(const uint64_t value, parse_number(text, low, high));
    return static_cast<unsigned>(value);
  };
}

std::string describe(const inspect::ImageInfo& info) {
  std::string text = fmt::format("{}: {}, {}", info.filename, qcow2::to_string(info.format),
                                 human_size(info.virtual_size));
  if (info.header) {
    const qcow2::Header& header = *info.header;
    text += ", clusters of " + human_size(header.geometry().cluster_size());
    if (header.extended_l2()) text += ", extended L2";
    if (!header.backing_file.empty()) text += ", backing file " + info.full_backing_filename;
    if (header.has_data_file()) text += ", data file " + header.data_file().value_or("not named");
  }
  return text;
}

// Warns about contents of the source that a copy of one disk does not include.
void warn_of_losses(const inspect::ImageInfo& source, bool snapshots_are_lost, bool with_bitmaps,
                    const Console& console) {
  if (!source.snapshots.empty() && snapshots_are_lost)
    console.warning(fmt::format(
        "{}: {} not copied, only the disk as it is now (--with-snapshots)", source.filename,
        source.snapshots.size() == 1
            ? std::string("its internal snapshot was")
            : fmt::format("its {} internal snapshots were", source.snapshots.size())));
  if (!source.bitmaps.empty() && !with_bitmaps)
    console.warning(fmt::format(
        "{}: its persistent bitmaps were not copied (--bitmaps copies them)", source.filename));
  const std::string unknown =
      source.header ? copy::describe_unknown_extensions(*source.header) : "";
  if (!unknown.empty()) console.warning(source.filename + ": " + unknown);
}

constexpr std::array<std::string_view, 5> kCacheModes{"none", "writeback", "writethrough",
                                                      "directsync", "unsafe"};

Result<std::string> parse_cache_mode(const std::string& text) {
  if (std::find(kCacheModes.begin(), kCacheModes.end(), text) == kCacheModes.end())
    return fail(Error::invalid(fmt::format("'{}' is not a cache mode", text)));
  return text;
}

// With -n: a file is replaced as a whole or updated, never written in place.
Result<void> check_is_there(const copy::CopyOptions& options) {
  struct stat status {};
  const std::string& name = options.destination;
  if (!options.destination_command.empty()) return {};
  ASSIGN_OR_RETURN(const bool is_nbd, nbd::is_nbd_uri(name));
  if (is_nbd) return {};
  if (retry(::stat, name.c_str(), &status) != 0)
    return fail(Error::system(errno, name + ": -n needs a DST that exists"));
  if (!S_ISREG(status.st_mode)) return {};
  return fail(Error::unsupported(name + ": -n: files are not written in place: use --force to "
                                        "replace it when the new file is complete"));
}

}  // namespace

const char* CopyCommand::description() const {
  return "Copy the clusters in use of SRC into a fresh DST. Each is a file, a device, an\nNBD URI, "
         "[ COMMAND... ] that serves NBD, or - (a pipe); DST may also be null:.";
}

void CopyCommand::add_options(CLI::App& app) {
  const auto text = [](const std::string& value) -> Result<std::string> { return value; };
  app.add_option("SRC", options_.source);
  app.add_option("DST", options_.destination);
  add_format_option(app, "-f,--format", options_.source_format,
                    "format of SRC, qcow2 or raw; default: detected");
  add_format_option(app, "-O,--output-format", options_.format,
                    "format of DST: qcow2 (default for files), or raw");
  layout_.add_options(app);
  trust_.add_options(app, true, base_, "keep BASE as the backing file of DST");
  trust_.add_untrusted(app);
  add_parsed_option(app, "-F,--backing-format", "FMT", base_format_, text, "format of BASE")
      ->group(kRareOptions);
  add_parsed_option(
      app, "-S,--sparse", "SIZE", options_.sparse_size,
      [this](const std::string& value) -> Result<uint64_t> {
        all_allocated_ = value == "0";
        if (all_allocated_) return uint64_t{0};
        return parse_power_of_two(value, 512, 2 << 20, "from 512 to 2M, and not 0");
      },
      "zeros of this size become holes in a raw DST")
      ->group(kRareOptions);
  add_parsed_option(app, "--snapshot", "NAME", options_.snapshot, text,
                    "copy the disk as it was at an internal snapshot");
  snapshots_.add_with(app, "copy internal snapshots, too")->group(kRareOptions);
  snapshots_.add_drop(app)->group(kRareOptions);
  add_switch(app, "-U,--force-share", options_.force_share,
             "copy even if another process writes to SRC")
      ->group(kRareOptions);
  add_switch(app, "--salvage", options_.salvage, "copy the readable data of a damaged SRC")
      ->group(kRareOptions);
  add_switch(app, "--skip-free", options_.skip_free, "do not copy what the guest does not use");
  add_switch(app, "--force", options_.overwrite, "replace DST if it exists");
  add_switch(app, "--destination-is-zero", options_.destination_is_zero,
             "DST already reads as zeros")
      ->group(kRareOptions);
  add_parsed_option(app, "--bitmap", "NAME", options_.bitmap, text,
                    "update an earlier copy from this dirty bitmap")
      ->group(kRareOptions);
  add_switch(app, "--bitmaps", bitmaps_, "copy the persistent bitmaps of SRC, too")
      ->group(kRareOptions);
  add_switch(app, "--skip-broken-bitmaps", skip_broken_,
             "with --bitmaps: leave out those that are not valid")
      ->group(kRareOptions);
  add_switch(app, "--drop-bitmaps", drop_bitmaps_, "do not copy persistent bitmaps (the default)")
      ->group(kRareOptions);
  add_switch(app, "--dry-run", options_.dry_run, "write nothing; print what DST would be");
  add_switch(app, "--verify", options_.verify, "read DST back and compare it with SRC");
  add_reflink_option(app, options_.reflink)->group(kRareOptions);
  add_parsed_option(
      app, "--spool", "DIR", options_.spool,
      [](const std::string& value) -> Result<std::optional<std::string>> {
        return value == "none" ? std::string() : value;
      },
      "folder for an image that goes to '-', or none")
      ->group(kRareOptions);
  add_parsed_option(
      app, "-r,--rate-limit", "SIZE", options_.rate_limit,
      [](const std::string& value) -> Result<uint64_t> {
        ASSIGN_OR_RETURN(const uint64_t rate, parse_size(value));
        if (rate == 0) return fail(Error::invalid("'0' is not a valid rate"));
        return rate;
      },
      "read at most SIZE bytes a second")
      ->group(kRareOptions);
  add_parsed_option(app, "-m,--threads", "N", options_.threads, parse_count(0, kMaxThreads),
                    "number of threads; default: one per processor")
      ->group(kRareOptions);
  add_switch(app, "-W", out_of_order_, "accepted: writes are always out of order")
      ->group(kRareOptions);
  add_connections_option(app, options_.nbd)->group(kRareOptions);
  add_request_options(app, options_.nbd);
  add_retries_option(app, options_.nbd)->group(kRareOptions);
  add_timeout_option(app, options_.nbd.timeout)->group(kRareOptions);
  add_qemu_options(app);
  add_output_option(app, json_, "the summary: human (the default) or json");
  app.get_option("--output")->group(kRareOptions);
  metrics().add_option(app);
}

void CopyCommand::add_qemu_options(CLI::App& app) {
  add_parsed_option(app, "-l", "SNAPSHOT", options_.snapshot, parse_snapshot_param,
                    "as --snapshot; also snapshot.id=, snapshot.name=")
      ->group(kRareOptions);
  add_switch(app, "-n", no_create_, "write into an existing device or server")->group(kRareOptions);
  add_parsed_option(app, "-t", "CACHE", cache_, parse_cache_mode, "accepted: DST is always flushed")
      ->group(kRareOptions);
  add_parsed_option(app, "-T", "CACHE", source_cache_, parse_cache_mode, "accepted and ignored")
      ->group(kRareOptions);
  add_switch(app, "-C", offload_, "accepted: see --reflink")->group(kRareOptions);
  add_switch(app, "--target-is-zero", target_is_zero_, "the same as --destination-is-zero")
      ->group(kRareOptions);
  trust_.add_key_option(app);
  names_.add_options(app, trust_.keys());
  names_.add_target_options(app);
}

void CopyCommand::check_qemu_options() const {
  if (no_create_ && options_.overwrite)
    throw UsageError("-n and --force: -n writes into an existing DST, --force replaces it");
}

// Warns about options that are accepted for scripts and have another effect here.
void CopyCommand::tell_of_qemu_options(const Console& console) const {
  if (offload_)
    console.warning(
        "-C: copies are not offloaded to the storage: --reflink decides what is cloned");
  if (layout_.size())
    console.warning(
        "-o size: the disk of DST has the size of SRC's disk: change it with qemu-img resize");
}

void CopyCommand::check() const {
  if (options_.source.empty()) throw UsageError("SRC is missing");
  if (options_.destination.empty()) throw UsageError("DST is missing");
  refuse_option_like(options_.destination, "DST", "-o", "-O");
  layout_.check();
  trust_.check();
  snapshots_.check(false);
  if (!base_.empty() && trust_.trust().names.backing == qcow2::NameRule::kLeaveOut)
    throw UsageError(
        "-B and --backing=none: -B keeps the backing file, --backing=none reads SRC without it");
  if (options_.salvage && !options_.bitmap.empty())
    throw UsageError("--salvage and --bitmap: SRC of --salvage must be a file");
  if (options_.skip_free) check_skip_free();
  if (skip_broken_ && !bitmaps_) throw UsageError("--skip-broken-bitmaps needs --bitmaps");
  if (bitmaps_ && drop_bitmaps_)
    throw UsageError("--bitmaps and --drop-bitmaps exclude each other");
  check_qemu_options();
  if (json_ && options_.destination == "-")
    throw UsageError("--json: standard output already receives the image");
}

// The filesystem metadata must be complete, and must come from the guest's own disk.
void CopyCommand::check_skip_free() const {
  if (options_.source == "-")
    throw UsageError("--skip-free: a pipe cannot be searched for free space: give a path");
  if (options_.force_share)
    throw UsageError(
        "--skip-free and -U: a running guest may already use space that its metadata call free");
  if (options_.salvage)
    throw UsageError(
        "--skip-free and --salvage: the metadata in a damaged image cannot be trusted");
  if (!options_.bitmap.empty())
    throw UsageError("--skip-free and --bitmap: an update copies all changes");
}

// Combines the options. Specific options override general ones.
Result<void> CopyCommand::resolve_options() {
  for (auto [word, command] : {std::pair(&options_.source, &options_.source_command),
                               std::pair(&options_.destination, &options_.destination_command)})
    if (auto words = unfold_command(*word)) {
      *command = std::move(*words);
      *word = "[ " + join_words(*command, " ") + " ]";
    }

  RETURN_IF_ERROR(names_.resolve(options_.source, options_.source_format));
  RETURN_IF_ERROR(names_.resolve_target(options_.destination, options_.format));
  RETURN_IF_ERROR(layout_.apply_to(options_));
  RETURN_IF_ERROR(layout_.apply_encryption_to(names_.secrets(), options_));
  if (bitmaps_)
    options_.bitmaps = skip_broken_ ? copy::BitmapChoice::kUnbroken : copy::BitmapChoice::kAll;
  options_.snapshots = snapshots_.choice(false);
  options_.destination_is_zero = options_.destination_is_zero || target_is_zero_;
  if (all_allocated_ && options_.image.preallocation == copy::Preallocation::kOff)
    options_.image.preallocation = copy::Preallocation::kFull;
  if (no_create_) RETURN_IF_ERROR(check_is_there(options_));
  return resolve_backing(base_, base_format_, options_.image);
}

// With --untrusted: confines the process to the files that the copy opens.
Result<void> CopyCommand::begin(const Console& console) {
  options_.trust = trust_.trust();
  if (!trust_.untrusted()) return {};
  RETURN_IF_ERROR(check_is_file(options_.source));
  if (!options_.source_command.empty() || !options_.destination_command.empty())
    return fail(
        Error::invalid("--untrusted works only with image files, not with servers and pipes"));
  const std::string& destination = options_.destination;
  ConfinementPlan plan{{options_.source}, {}, {}};
  if (destination == "-") {
    // Builds the image twice, rather than use a folder that other users share.
    if (!options_.spool) options_.spool.emplace();
    if (!options_.spool->empty()) plan.folders.push_back(*options_.spool);
  } else if (destination != "null:") {
    RETURN_IF_ERROR(check_is_file(destination));
    std::error_code ignored;
    if (std::filesystem::is_block_file(destination, ignored))
      plan.writable.push_back(destination);
    else
      plan.folders.push_back(Directory::parent_of(destination));
    if (const std::string& data = options_.image.data_file; !data.empty()) {
      ASSIGN_OR_RETURN(const std::string path, qcow2::resolve_name(destination, data));
      plan.folders.push_back(Directory::parent_of(path));
    }
  }
  for (const std::string& folder : metrics().folders()) plan.folders.push_back(folder);
  return trust_.begin(console, plan, failure_code());
}

Result<int> CopyCommand::run(const Console& console) {
  RETURN_IF_ERROR(resolve_options());
  tell_of_qemu_options(console);
  const auto format = options_.format.value_or(qcow2::Format::kQcow2);
  if (const auto contradiction = name_contradiction(options_.destination, format))
    console.warning(*contradiction);
  // A saved guest holds no lock, and still needs ranges that its filesystem metadata call free.
  // Must precede the confinement.
  if (options_.skip_free) RETURN_IF_ERROR(check_disk_use(options_.source, console));
  metrics().add_new(options_.source, options_.destination);
  RETURN_IF_ERROR(begin(console));
  warn_of_images(console, options_.trust, {options_.source});
  if (const CopyProfile* const it = layout_.profile())
    console.remark(fmt::format("{}: {}", it->name, it->description));

  // The copy itself reports errors of the source.
  const bool is_file = options_.source_command.empty() && options_.source != "-";
  inspect::InfoOptions look;
  look.format = options_.source_format;
  look.force_share = options_.force_share;
  look.survey = false;
  look.trust = options_.trust;
  const auto source = is_file ? inspect::read_image_info(options_.source, look)
                              : Result<inspect::ImageInfo>(fail(Error::invalid("no file")));
  if (source) console.note(describe(*source));
  ASSIGN_OR_RETURN(const auto summary, run_copy(options_, console));
  for (const std::string& reason : summary.bitmaps_left_out)
    console.warning(fmt::format("{}: {}", options_.source, reason));
  if (source)
    warn_of_losses(*source,
                   options_.snapshot.empty() && !options_.snapshots && !snapshots_.drops_all(),
                   bitmaps_ || drop_bitmaps_, console);
  const int code = summary.lost.empty() ? kSuccess : kSalvaged;
  const std::string lost =
      options_.destination + ": is complete, but its summary could not be printed";
  if (json_) {
    RETURN_IF_ERROR(with_context(console.print(copy_report_json(options_, summary)), lost));
    return code;
  }
  if (!summary.lost.empty()) console.tell(lost_ranges(options_, summary));
  if (console.manner().quiet) return code;
  if (options_.destination == "-") {
    console.tell(copy_report(options_, summary, Palette(false)));
    return code;
  }
  RETURN_IF_ERROR(
      with_context(console.print(copy_report(options_, summary, console.palette())), lost));
  return code;
}

}  // namespace vc::tool
