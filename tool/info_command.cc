#include "tool/info_command.h"

#include <fmt/format.h>

#include "copy/nbd_uri.h"
#include "tool/arguments.h"
#include "tool/formats.h"
#include "tool/image_info.h"
#include "tool/info_report.h"

namespace tool {

using qcow2::Error;
using qcow2::fail;
using qcow2::Result;

const char* InfoCommand::description() const {
  return "Show what the qcow2 or raw image FILE says of itself: size, format, options,\n"
         "backing file, snapshots.  Neither its backing nor its data file need be there.";
}

void InfoCommand::add_options(CLI::App& app) {
  app.add_option("FILE", file_);
  add_parsed_option(
      app, "-f,--format", "FMT", format_,
      [](const std::string& text) -> Result<std::optional<qcow2::Format>> {
        return parse_format(text);
      },
      "format of FILE, qcow2 or raw; found out if not given");
  add_switch(app, "-U,--force-share", force_share_, "look even if somebody writes to FILE");
  add_parsed_option(
      app, "--output", "AS", json_,
      [](const std::string& text) -> Result<bool> {
        if (text != "human" && text != "json")
          return fail(Error::invalid(fmt::format("'{}' is neither human nor json", text)));
        return text == "json";
      },
      "human (the default) or json, with qemu-img's keys");
}

void InfoCommand::check() const {
  if (file_.empty()) throw UsageError("FILE is missing");
}

Result<int> InfoCommand::run(const Console& console) {
  ASSIGN_OR_RETURN(const bool is_nbd, copy::is_nbd_uri(file_));
  if (is_nbd)
    return fail(Error::unsupported(
        fmt::format("'{}': info looks at files; nbdinfo tells of NBD servers", file_)));
  ASSIGN_OR_RETURN(const ImageInfo info, read_image_info(file_, format_, force_share_));
  if (json_) {
    RETURN_IF_ERROR(console.print(info_report_json(info)));
    return kSuccess;
  }
  if (console.manner().quiet) return kSuccess;
  RETURN_IF_ERROR(console.print(info_report(info, console.manner().verbose, console.palette())));
  return kSuccess;
}

}  // namespace tool
