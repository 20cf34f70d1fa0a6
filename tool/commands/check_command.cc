#include "tool/commands/check_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/byte_order.h"
#include "base/printable.h"
#include "qcow2/format/compressed_file.h"
#include "qcow2/repair/undo_file.h"
#include "storage/file_storage.h"
#include "storage/scratch_storage.h"
#include "tool/options/arguments.h"
#include "tool/options/formats.h"
#include "tool/options/servers.h"
#include "tool/report/check_log.h"
#include "tool/report/check_report.h"
#include "tool/terminal/progress_display.h"
#include "tool/terminal/signals.h"
#include "tool/text/json_text.h"
#include "tool/text/size_text.h"

namespace vc::tool {

namespace {

constexpr unsigned kMaxThreads = 64;
constexpr std::array<std::string_view, 5> kCacheModes{"none", "writeback", "writethrough",
                                                      "directsync", "unsafe"};

// Describes a file that begins with `start` and is not a QCOW2 image.
std::string what_it_is(const std::string& name, std::span<const std::byte> start) {
  if (const char* const foreign = qcow2::foreign_format(start))
    return fmt::format("is a {} image", foreign);
  if (const auto* const it = qcow2::find_compressor(start))
    return fmt::format("is compressed with {}: {}", it->name, advice(*it, name));
  if (qcow2::is_named_qcow2(name))
    return "is named as a QCOW2 image, but does not begin like one: its header is lost, or it is "
           "another kind of file";
  return "is a raw disk";
}

// Detects a QCOW2 image, or another format, by the first bytes.
Result<bool> is_qcow2(const Storage& file, const Console& console) {
  std::array<std::byte, 512> start{};
  ASSIGN_OR_RETURN(const size_t got, file.read(HostOffset(0), start));
  const auto bytes = std::span<const std::byte>(start).first(got);
  const bool magic = qcow2::has_magic(bytes);
  if (magic && got >= 8 && load_be32(start.data() + 4) == 1) {
    console.error(fmt::format("{}: is a qcow image of version 1; only qcow2 images can be checked",
                              file.name()));
    return false;
  }
  if (magic) return true;
  console.error(fmt::format("{}: {}: only qcow2 images can be checked", file.name(),
                            what_it_is(file.name(), bytes)));
  return false;
}

}  // namespace

const char* CheckCommand::description() const {
  return "Check all metadata of the qcow2 image FILE, and print the errors.  The backing\nfile is "
         "not checked.  Exit codes: 0 no errors, 1 not checked, 2 corrupt,\n3 leaks, 63 not a "
         "qcow2 image.";
}

void CheckCommand::add_options(CLI::App& app) {
  app.add_option("FILE", file_);
  add_format_option(app, "-f,--format", format_, "format of FILE, qcow2 or raw; default: detected");
  add_switch(app, "--deep", options_.deep, "also decode every compressed cluster");
  add_parsed_option(
      app, "-r,--repair", "WHAT", repair_,
      [](const std::string& text) -> Result<std::optional<qcow2::RepairOptions::What>> {
        if (text == "leaks") return qcow2::RepairOptions::What::kLeaks;
        if (text == "all") return qcow2::RepairOptions::What::kAll;
        return fail(Error::invalid(fmt::format("'{}' is neither leaks nor all", text)));
      },
      "repair leaks, or all errors that can be repaired");
  const auto as_it_is = [](const std::string& value) -> Result<std::string> { return value; };
  add_parsed_option(app, "--undo", "UNDO", undo_, as_it_is,
                    "file for old content; default: FILE.undo; or none");
  add_switch(app, "--dry-run", dry_run_, "write nothing; print what -r would repair");
  add_switch(app, "--lossy", lossy_, "-r frees unreferenced clusters despite other damage");
  add_parsed_option(app, "--apply-undo", "UNDO", apply_undo_, as_it_is, "undo a repair");
  add_switch(app, "-U,--force-share", force_share_, "check even if another process writes to FILE");
  add_output_option(app, json_, "human (the default) or json, with qemu-img's keys");
  add_parsed_option(
      app, "-m,--threads", "N", options_.threads,
      [](const std::string& text) -> Result<unsigned> {
        ASSIGN_OR_RETURN(const uint64_t count, parse_number(text, 1, kMaxThreads));
        return static_cast<unsigned>(count);
      },
      "default: as many as there are processors")
      ->group(kRareOptions);
  add_parsed_option(
      app, "-T,--cache", "CACHE", cache_,
      [](const std::string& text) -> Result<std::string> {
        if (std::find(kCacheModes.begin(), kCacheModes.end(), text) == kCacheModes.end())
          return fail(Error::invalid(fmt::format("'{}' is not a cache mode", text)));
        return text;
      },
      "accepted as in qemu-img, and ignored")
      ->group(kRareOptions);
  trust_.add_untrusted(app);
  names_.add_options(app, trust_.keys());
  metrics().add_option(app);
}

void CheckCommand::check() const {
  if (file_.empty()) throw UsageError("FILE is missing");
  if (!undo_.empty() && !repair_) throw UsageError("--undo needs -r");
  if (lossy_ && !repair_) throw UsageError("--lossy needs -r");
  if (dry_run_ && !repair_ && apply_undo_.empty())
    throw UsageError("--dry-run needs -r: a check changes nothing");
  if (dry_run_ && !undo_.empty())
    throw UsageError("--dry-run and --undo: a dry run makes no undo file");
  if (dry_run_ && !apply_undo_.empty())
    throw UsageError("--apply-undo has no dry run: omit --dry-run");
  if (!apply_undo_.empty() && (repair_ || options_.deep))
    throw UsageError("--apply-undo cannot be combined with -r or --deep");
  if (force_share_ && (repair_ || !apply_undo_.empty()))
    throw UsageError("--force-share: an image that another process writes to cannot be changed");
  trust_.check();
  if (trust_.untrusted() && (repair_ || !apply_undo_.empty()))
    throw UsageError("--untrusted allows no repair: repair a copy (virt-compact copy --untrusted)");
}

Result<std::shared_ptr<FileStorage>> CheckCommand::open() const {
  if ((repair_ && !dry_run_) || !apply_undo_.empty()) {
    ASSIGN_OR_RETURN(auto file, FileStorage::open_writable(file_));
    RETURN_IF_ERROR(file->lock(ImageClaim::writing(), "shut down the guest that uses it"));
    return file;
  }
  ASSIGN_OR_RETURN(auto file, FileStorage::open_readonly(file_));
  qcow2::OpenOptions options;
  options.force_share = force_share_;
  options.force_share_option = "--force-share";
  RETURN_IF_ERROR(qcow2::lock_for_reading(*file, options));
  return file;
}

Result<int> CheckCommand::take_back(const Console& console) const {
  ASSIGN_OR_RETURN(const auto file, open());
  RETURN_IF_ERROR(qcow2::apply_undo(apply_undo_, *file));
  if (json_) {
    RETURN_IF_ERROR(console.print(json_text({{"filename", file_}, {"undone", apply_undo_}})));
  } else if (!console.manner().quiet) {
    RETURN_IF_ERROR(console.print(printable(file_) + " has the content from before the repair\n"));
  }
  return kSuccess;
}

Result<void> CheckCommand::check_trust(const qcow2::Header& header) const {
  if (!trust_.untrusted()) return {};
  return with_context(qcow2::check_untrusted_header(header, trust_.trust()), file_);
}

// In a dry run, the sums stay those of the unchanged image.
Result<void> CheckCommand::repair(const std::shared_ptr<FileStorage>& file, CheckReport& report,
                                  CheckLog& log) const {
  std::shared_ptr<Storage> storage = file;
  std::string undo;
  if (dry_run_) {
    ASSIGN_OR_RETURN(storage, ScratchStorage::create(file));
  } else if (undo_.empty() && !std::filesystem::is_regular_file(file_)) {
    // A file next to a device would disappear at the next boot.
    return fail(Error::invalid("is a device: name the undo file with --undo"));
  } else {
    undo = undo_.empty() ? file_ + ".undo" : undo_ == "none" ? "" : undo_;
  }
  ASSIGN_OR_RETURN(const auto done,
                   qcow2::repair(storage, {*repair_, options_, lossy_, undo}, log));
  report.dry_run = dry_run_;
  report.sums = dry_run_ ? done.before : done.after;
  report.leaks_fixed = done.leaks_fixed;
  report.corruptions_fixed = done.corruptions_fixed;
  report.counts_left = done.counts_left;
  report.entries_left = done.entries_left;
  report.has_written = done.has_written;
  report.deallocated = done.deallocated;
  report.undo_full = done.undo_full;
  if (done.has_written) report.undo_file = undo;
  return {};
}

Result<int> CheckCommand::run(const Console& console) {
  RETURN_IF_ERROR(names_.resolve(file_, format_));
  RETURN_IF_ERROR(refuse_server(file_, "only files can be checked",
                                "a server shows the disk, not its image: check the file that it "
                                "serves"));
  if (!apply_undo_.empty()) {
    metrics().add(file_);
    return take_back(console);
  }
  metrics().add(file_);
  RETURN_IF_ERROR(trust_.begin_reading(console, {file_}, failure_code(), metrics().folders()));
  ASSIGN_OR_RETURN(const auto file, open());
  if (format_ != qcow2::Format::kQcow2) {
    ASSIGN_OR_RETURN(const bool qcow2, is_qcow2(*file, console));
    if (!qcow2) return kCheckUnsupported;
  }
  if (format_ == qcow2::Format::kRaw) {
    console.error(file_ + ": the given format is raw; only qcow2 images can be checked");
    return kCheckUnsupported;
  }

  Cancel cancel;
  const StopSignals signals(cancel);
  ProgressDisplay progress(console.manner());
  progress.begin(Phase::kCheck);
  CheckLog log(console.manner().verbose ? CheckLog::kMany : CheckLog::kFew, progress, cancel);
  CheckReport report;
  report.filename = file_;
  report.deep = options_.deep;
  {
    ASSIGN_OR_RETURN(auto checker, qcow2::Checker::open(*file, options_));
    RETURN_IF_ERROR(check_trust(checker.header()));
    report.geometry = checker.header().geometry();
    if (!repair_) {
      const auto sums = checker.run(log);
      progress.finish();
      if (!sums) return fail(Error(sums.error()).with_context(file_));
      report.sums = *sums;
    }
  }
  if (repair_) {
    const auto done = repair(file, report, log);
    progress.finish();
    if (!done) return fail(Error(done.error()).with_context(file_));
  }
  if (!report.has_written) metrics().unchanged();
  if (json_) {
    RETURN_IF_ERROR(console.print(check_report_json(report, log)));
  } else {
    if (!log.findings().empty()) console.tell(check_findings(report, log));
    if (!console.manner().quiet)
      RETURN_IF_ERROR(console.print(check_repairs(report) + check_summary(report)));
  }
  const int code = check_exit_code(report.sums);
  if (code == kCheckFailed) console.error(file_ + ": could not be checked completely");
  return code;
}

}  // namespace vc::tool
