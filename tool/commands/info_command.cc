#include "tool/commands/info_command.h"

#include <fmt/format.h>

#include "base/printable.h"
#include "copy/source/open_source.h"
#include "inspect/image_info.h"
#include "tool/options/arguments.h"
#include "tool/options/bracketed_commands.h"
#include "tool/options/formats.h"
#include "tool/options/nbd_options.h"
#include "tool/report/info_report.h"
#include "tool/terminal/progress_display.h"
#include "tool/terminal/signals.h"

namespace vc::tool {

const char* InfoCommand::description() const {
  return "Show the properties of the qcow2 or raw image FILE: size, format, options,\nsnapshots, "
         "bitmaps, use of its space, and fragmentation.  FILE may be an NBD\nURI, or [ COMMAND... "
         "]: only the size of these is shown.";
}

void InfoCommand::add_options(CLI::App& app) {
  app.add_option("FILE", file_);
  add_format_option(app, "-f,--format", format_, "format of FILE, qcow2 or raw; default: detected");
  add_switch(app, "--backing-chain", backing_chain_, "also show each backing file");
  add_switch(app, "--quick", quick_, "do not compute the use of space and fragmentation");
  add_switch(app, "-U,--force-share", force_share_, "read even if another process writes to FILE");
  add_timeout_option(app, nbd_.timeout)->group(kRareOptions);
  add_output_option(app, json_, "human (the default) or json, with qemu-img's keys");
  trust_.add_options(app, false);
  trust_.add_untrusted(app);
  names_.add_options(app, trust_.keys());
}

void InfoCommand::check() const {
  if (file_.empty()) throw UsageError("FILE is missing");
  trust_.check();
}

// Returns the information of a server's disk: only its size.
static Result<inspect::ImageInfo> remote_info(const std::string& name,
                                              const std::vector<std::string>& command,
                                              const nbd::NbdTuning& nbd) {
  Cancel cancel;
  const StopSignals signals(cancel);
  const Stop stop(cancel);
  copy::SourceOptions options;
  options.name = name;
  options.command = command;
  options.nbd.tuning = nbd;
  ASSIGN_OR_RETURN(const auto source, copy::open_source(options, stop));
  inspect::ImageInfo info;
  info.filename = source->name();
  info.virtual_size = source->size();
  return info;
}

Result<std::vector<inspect::ImageInfo>> InfoCommand::read_chain(const Console& console,
                                                                std::optional<Error>& error) const {
  const auto command = unfold_command(file_).value_or(std::vector<std::string>{});
  ASSIGN_OR_RETURN(const auto target, copy::nbd_target(file_, command));
  if (target) {
    if (format_ == qcow2::Format::kQcow2)
      return fail(Error::unsupported(
          fmt::format("{}: a QCOW2 file behind NBD is not decoded", target->name())));
    ASSIGN_OR_RETURN(auto info, remote_info(file_, command, nbd_));
    return std::vector{std::move(info)};
  }
  ProgressDisplay progress(console.manner());
  inspect::InfoOptions options;
  options.format = format_;
  options.force_share = force_share_;
  options.trust = trust_.trust();
  options.survey = !quick_;
  options.progress = [&](uint64_t done, uint64_t total) { progress.update(done, total); };
  if (backing_chain_) return inspect::read_chain_info(file_, options, error);
  ASSIGN_OR_RETURN(auto info, inspect::read_image_info(file_, options));
  return std::vector{std::move(info)};
}

Result<int> InfoCommand::run(const Console& console) {
  RETURN_IF_ERROR(names_.resolve(file_, format_));
  RETURN_IF_ERROR(trust_.begin_reading(console, {file_}, failure_code()));
  std::optional<Error> error;  // the error at the end of the chain
  ASSIGN_OR_RETURN(const auto chain, read_chain(console, error));
  if (chain.empty()) return fail(*error);
  if (json_) {
    RETURN_IF_ERROR(
        console.print(backing_chain_ ? info_report_json(chain) : info_report_json(chain.front())));
  } else if (!console.manner().quiet) {
    std::string text;
    for (const inspect::ImageInfo& it : chain) {
      if (!text.empty()) text += "\n";
      text += info_report(it, console.manner().verbose, console.palette());
    }
    RETURN_IF_ERROR(console.print(text));
  }
  int code = kSuccess;
  for (const inspect::ImageInfo& it : chain) {
    if (it.survey && it.survey->damages > 0)
      console.warning(fmt::format(
          "{}: the tables are damaged, and the figures omit the parts that cannot be read: {}{}",
          it.filename, printable(it.survey->first_damage),
          it.survey->damages > 1 ? fmt::format(", and {} more", it.survey->damages - 1) : ""));
    for (const std::string& damage : it.damages)
      console.warning(fmt::format("{}: {}", it.filename, printable(damage)));
    for (const std::string& missing : it.missing) {
      console.error(fmt::format("{}: {}", it.filename, printable(missing)));
      code = kFailure;
    }
  }
  if (error) return fail(*error);
  return code;
}

}  // namespace vc::tool
