#include "tool/commands/punch_command.h"

#include <fmt/format.h>

#include <bit>
#include <nlohmann/json.hpp>

#include "base/printable.h"
#include "copy/source/open_source.h"
#include "tool/options/arguments.h"
#include "tool/options/bracketed_commands.h"
#include "tool/options/nbd_options.h"
#include "tool/terminal/progress_display.h"
#include "tool/terminal/signals.h"
#include "tool/text/json_text.h"
#include "tool/text/size_text.h"

namespace vc::tool {

const char* PunchCommand::description() const {
  return "Read a writable disk behind NBD, and deallocate every block that holds zeros.\nThe "
         "content of the disk does not change. URI may be [ COMMAND... ].";
}

void PunchCommand::add_options(CLI::App& app) {
  app.add_option("URI", server_);
  add_parsed_option(
      app, "-S,--block-size", "SIZE", options_.unit,
      [](const std::string& text) -> Result<uint64_t> {
        ASSIGN_OR_RETURN(const uint64_t size, parse_size(text));
        if (!std::has_single_bit(size) || size < 512 || size > (2 << 20))
          return fail(
              Error::invalid(fmt::format("'{}' is not a power of two from 512 to 2M", text)));
        return size;
      },
      "find zeros in blocks of this size");
  add_connections_option(app, options_.nbd);
  add_retries_option(app, options_.nbd);
  add_timeout_option(app, options_.nbd.timeout);
  add_switch(app, "--dry-run", options_.dry_run, "write nothing; print what would be deallocated");
  add_output_option(app, json_, "the summary: human (the default) or json");
  metrics().add_option(app);
}

void PunchCommand::check() const {
  if (server_.empty()) throw UsageError("URI is missing");
}

Result<int> PunchCommand::run(const Console& console) {
  const auto command = unfold_command(server_);
  ASSIGN_OR_RETURN(const auto target,
                   copy::nbd_target(server_, command.value_or(std::vector<std::string>{})));
  if (!target)
    return fail(Error::invalid(
        server_ + ": is not an NBD URI: virt-compact copy removes the zeros of a local image"));
  options_.target = *target;
  metrics().add(target->name());
  Cancel cancel;
  const StopSignals signals(cancel);
  ProgressDisplay progress(console.manner());
  const auto summary = copy::punch(options_, progress, cancel);
  progress.finish();
  if (!summary) {
    // After a cancellation, deallocated blocks stay deallocated; nothing else has changed.
    if (summary.error().kind() == Error::Kind::kCancelled)
      return fail(Error::cancelled().with_context(target->name() + ": incomplete"));
    return fail(summary.error());
  }
  if (summary->punched == 0) metrics().unchanged();
  if (json_) {
    nlohmann::ordered_json json;
    json["server"] = target->name();
    json["virtual-size"] = summary->disk_size;
    json["block-size"] = summary->unit;
    json["scanned"] = summary->scanned;
    json["zero"] = summary->zero;
    json["punched"] = summary->punched;
    if (options_.dry_run) json["dry-run"] = true;
    json["seconds"] = summary->elapsed.count();
    using nlohmann::ordered_json;
    RETURN_IF_ERROR(console.print(json_text(json)));
    return kSuccess;
  }
  if (console.manner().quiet) return kSuccess;
  RETURN_IF_ERROR(console.print(fmt::format(
      "{}\n{} {}deallocated\n\n  {:<12} {:>9}\n  {:<12} {:>9}  in blocks of {}\n  {} disk in "
      "{:.1f} s\n{}",
      printable(target->name()), human_size(options_.dry_run ? summary->zero : summary->punched),
      options_.dry_run ? "would be " : "", "read", human_size(summary->scanned), "zeros",
      human_size(summary->zero), human_size(summary->unit), human_size(summary->disk_size),
      summary->elapsed.count(), options_.dry_run ? "Nothing was written.\n" : "")));
  return kSuccess;
}

}  // namespace vc::tool
