#include "tool/commands/tune_command.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "appliance/trim_timer.h"
#include "base/printable.h"
#include "libvirt/definition_file.h"
#include "libvirt/libvirt_domain.h"
#include "libvirt/unified_diff.h"
#include "tool/commands/disk_use.h"
#include "tool/options/arguments.h"
#include "tool/options/bracketed_commands.h"
#include "tool/options/formats.h"
#include "tool/options/qemu_names.h"
#include "tool/terminal/signals.h"
#include "tool/terminal/step_lines.h"
#include "tool/text/size_text.h"

namespace vc::tool {

namespace {

constexpr const char* kOldLibvirt =
    "libvirt 10.0 and later keep discard_granularity; older versions drop it";

bool sets_granularity(const libvirt::Tuning& tuning) {
  for (const libvirt::DiskReport& disk : tuning.disks)
    for (const libvirt::Change& it : disk.changes)
      if (it.attribute == "discard_granularity") return true;
  return false;
}

auto setting(std::optional<std::string> libvirt::Settings::*which) {
  return [which](const std::string& text) -> Result<std::optional<std::string>> {
    if (text == "keep") return std::optional<std::string>{};
    libvirt::Settings alone{{}, {}, {}, {}, {}, true, {}};
    alone.*which = text;
    RETURN_IF_ERROR(libvirt::check(alone));
    return std::optional(text);
  };
}

bool exists(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0;
}

// Returns complaints about settings with which QEMU would not start.
std::vector<std::string> complaints_of(const libvirt::Tuning& tuning) {
  std::vector<std::string> images;
  for (const libvirt::DiskReport& disk : tuning.disks)
    for (const libvirt::Change& it : disk.changes)
      if (it.attribute == "cache" && (it.to == "none" || it.to == "directsync"))
        images.push_back(disk.source);
  return libvirt::direct_io_complaints(images);
}

}  // namespace

const char* TuneCommand::description() const {
  return "Set a libvirt domain's QCOW2 disks to pass trims on and to bypass the host's\ncache. "
         "DOMAIN: an XML file, - (standard input) or a name; with --guest: disks.";
}

void TuneCommand::add_options(CLI::App& app) {
  app.add_option("DOMAIN", names_);
  add_parsed_option(
      app, "-c,--connect", "URI", connect_,
      [](const std::string& text) -> Result<std::optional<std::string>> {
        return std::optional(text);
      },
      "DOMAIN is a name of this connection (qemu:///system)");
  add_switch(app, "--guest", guest_, "enable fstrim.timer in the Linux guest of the disks");
  add_format_option(app, "-f,--format", format_, "with --guest: format of the disks, qcow2 or raw")
      ->group(kRareOptions);
  add_switch(app, "--apply", apply_, "write the changes");
  add_switch(app, "--dry-run", dry_run_, "only show the changes: the default");
  app.add_option("--disk", settings_.targets, "change only this disk (vda); may be repeated")
      ->type_name("TARGET")
      ->allow_extra_args(false)
      ->take_all();
  add_parsed_option(app, "--cache", "MODE", settings_.cache, setting(&libvirt::Settings::cache),
                    "none (the default), directsync ..., or keep");
  add_parsed_option(app, "--io", "MODE", settings_.io, setting(&libvirt::Settings::io),
                    "native (the default), threads, io_uring, or keep");
  add_parsed_option(app, "--discard", "MODE", settings_.discard,
                    setting(&libvirt::Settings::discard), "unmap (the default), ignore, or keep");
  add_parsed_option(app, "--detect-zeroes", "MODE", settings_.detect_zeroes,
                    setting(&libvirt::Settings::detect_zeroes),
                    "unmap (the default), on, off, or keep");
  app.add_option_function<std::string>(
         "--discard-granularity",
         [this](const std::string& text) {
           settings_.keep_granularity = text == "keep";
           settings_.discard_granularity.reset();
           if (text == "keep" || text == "auto") return;
           const auto size = parse_power_of_two(text, 512, 64 << 20, "from 512 to 64M");
           if (!size) throw UsageError("--discard-granularity: " + size.error().message());
           settings_.discard_granularity = *size;
         },
         "auto (64k for Windows), SIZE or keep")
      ->type_name("SIZE")
      ->take_last();
  add_output_option(app, json_, "human (the default) or json");
  metrics().add_option(app);
}

void TuneCommand::check() const {
  if (names_.empty()) throw UsageError(guest_ ? "DISK is missing" : "DOMAIN is missing");
  if (!guest_ && names_.size() > 1)
    throw UsageError(fmt::format("unexpected argument '{}'", names_[1]));
  if (!guest_ && format_) throw UsageError("--format needs --guest");
  if (guest_ && (connect_ || !settings_.targets.empty()))
    throw UsageError("--guest takes disks: --connect and --disk need a domain");
  if (apply_ && dry_run_) throw UsageError("--apply and --dry-run exclude each other");
  if (connect_ && domain() == "-")
    throw UsageError("--connect needs the name of a domain, not standard input");
  const auto settings = libvirt::check(settings_);
  if (!settings) throw UsageError(settings.error().message());
}

// Prints the result. If the definition came from standard input, the changed definition goes to
// standard output.
Result<int> TuneCommand::show(const Console& console, const TuneResult& result) const {
  const bool taken = domain() == "-" && apply_;
  if (!console.manner().quiet)
    for (const std::string& it : complaints_of(result.tuning)) console.warning(it);
  if (taken) RETURN_IF_ERROR(console.print(result.tuning.text));
  if (json_) {
    if (!taken) RETURN_IF_ERROR(console.print(tune_report_json(result)));
    return kSuccess;
  }
  if (console.manner().quiet) return kSuccess;
  // patch(1) needs the exact bytes; a terminal must not get control characters.
  const bool watched = is_terminal(taken ? STDERR_FILENO : STDOUT_FILENO);
  const std::string diff = watched ? printable_lines(result.diff) : result.diff;
  const std::string text =
      diff + (diff.empty() ? "" : "\n") + tune_report(result, console.manner().verbose);
  if (taken)
    console.tell(text);
  else
    RETURN_IF_ERROR(console.print(text));
  return kSuccess;
}

Result<int> TuneCommand::tune_input(const Console& console) const {
  TuneResult result;
  result.name = "standard input";
  ASSIGN_OR_RETURN(const std::string text, libvirt::read_definition(STDIN_FILENO, result.name));
  ASSIGN_OR_RETURN(result.tuning, libvirt::tune(text, result.name, settings_));
  result.diff = libvirt::unified_diff(text, result.tuning.text, "domain.xml");
  result.applied = apply_;
  return show(console, result);
}

Result<int> TuneCommand::tune_file(const Console& console) const {
  TuneResult result;
  result.name = domain();
  ASSIGN_OR_RETURN(const std::string text, libvirt::read_definition(domain()));
  ASSIGN_OR_RETURN(result.tuning, libvirt::tune(text, domain(), settings_));
  result.diff = libvirt::unified_diff(text, result.tuning.text, domain());
  if (sets_granularity(result.tuning)) result.notes.emplace_back(kOldLibvirt);
  if (libvirt::is_libvirts_own(domain())) {
    const std::string why = domain() +
                            ": belongs to libvirt, which would not notice a change: use --connect "
                            "and the name of the domain";
    if (apply_) return fail(Error::invalid(why));
    result.notes.push_back(why);
  }
  if (apply_ && result.tuning.changes() > 0)
    RETURN_IF_ERROR(libvirt::replace_definition(domain(), text, result.tuning.text));
  result.applied = apply_;
  if (!apply_ && result.tuning.changes() > 0)
    result.notes.emplace_back("Nothing was written: use --apply to write the changes.");
  return show(console, result);
}

Result<int> TuneCommand::tune_libvirt(const Console& console) const {
  ASSIGN_OR_RETURN(auto domain,
                   libvirt::LibvirtDomain::open(connect_.value_or(""), domain(), apply_));
  TuneResult result;
  result.name = domain.name();
  ASSIGN_OR_RETURN(const auto state, domain.state());
  // The shown definition has no passwords.
  ASSIGN_OR_RETURN(const std::string shown, domain.definition(false));
  libvirt::Settings settings = settings_;
  ASSIGN_OR_RETURN(result.tuning, libvirt::tune(shown, result.name, settings));
  if (sets_granularity(result.tuning)) {
    ASSIGN_OR_RETURN(const bool known, domain.knows_granularity());
    if (!known && settings.discard_granularity)
      return fail(Error::unsupported(result.name + ": " + kOldLibvirt));
    if (!known) {
      settings.keep_granularity = true;
      result.notes.emplace_back(kOldLibvirt);
      ASSIGN_OR_RETURN(result.tuning, libvirt::tune(shown, result.name, settings));
    }
  }
  result.diff = libvirt::unified_diff(shown, result.tuning.text, "domain.xml");
  result.running = state.running;
  if (state.transient)
    return fail(Error::invalid(result.name + ": is transient, and has no persistent definition: "
                                             "change the XML file that it is started from"));
  if (apply_ && result.tuning.changes() > 0) {
    ASSIGN_OR_RETURN(const std::string whole, domain.definition(true));
    ASSIGN_OR_RETURN(const libvirt::Tuning tuned, libvirt::tune(whole, result.name, settings));
    RETURN_IF_ERROR(domain.define(tuned.text));
    ASSIGN_OR_RETURN(const std::string now, domain.definition(false));
    ASSIGN_OR_RETURN(const libvirt::Tuning again, libvirt::tune(now, result.name, settings));
    if (again.changes() > 0)
      return fail(Error::unsupported(
          result.name + ": libvirt accepted the definition, but did not keep all changes"));
    if (state.running)
      result.notes.emplace_back(
          "The domain is running: the changes take effect when it is shut down and started again "
          "(a reboot in the guest is not enough).");
    if (state.has_saved_state)
      result.notes.emplace_back(
          "The domain has a saved state, which would restore the old settings: start the domain "
          "and shut it down once, or discard the saved state with 'virsh managedsave-remove'.");
  }
  result.applied = apply_;
  if (!apply_ && result.tuning.changes() > 0)
    result.notes.emplace_back("Nothing was changed: use --apply to make the changes.");
  return show(console, result);
}

Result<int> TuneCommand::tune_guest(const Console& console) const {
  Cancel cancel;
  const StopSignals signals(cancel);
  StepLines steps(console, json_);
  std::vector<appliance::GuestDiskName> disks;
  for (const std::string& given : names_) {
    const std::string name = plain_path(given);
    if (apply_) RETURN_IF_ERROR(check_disk_use(name, console));
    appliance::GuestDiskName disk;
    if (const auto command = unfold_command(name))
      disk.command = *command;
    else
      disk.name = name;
    disk.format = format_;
    disks.push_back(std::move(disk));
  }
  auto reports = appliance::enable_trim_timer(disks, apply_, steps, cancel);
  steps.finish();
  if (!reports) return fail(std::move(reports).error());
  if (json_)
    RETURN_IF_ERROR(console.print(timer_report_json(*reports, apply_)));
  else if (!console.manner().quiet)
    RETURN_IF_ERROR(console.print(timer_report(*reports, apply_)));
  return kSuccess;
}

Result<int> TuneCommand::run(const Console& console) {
  for (const std::string& name : names_) metrics().add(name);
  if (!apply_) metrics().unchanged();
  if (guest_) return tune_guest(console);
  if (domain() == "-") return tune_input(console);
  if (connect_) return tune_libvirt(console);
  // A name without a slash may be a libvirt domain.
  if (exists(domain()) || domain().find('/') != std::string::npos) return tune_file(console);
  auto tuned = tune_libvirt(console);
  if (!tuned)
    return fail(std::move(tuned).error().with_context(
        fmt::format("there is no file '{}'; as a domain", domain())));
  return tuned;
}

}  // namespace vc::tool
