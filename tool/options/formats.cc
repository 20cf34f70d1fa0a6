#include "tool/options/formats.h"

#include <fmt/format.h>

#include "tool/options/arguments.h"

namespace vc::tool {

Result<std::optional<qcow2::Format>> parse_format(const std::string& text) {
  for (const auto format : {qcow2::Format::kQcow2, qcow2::Format::kRaw, qcow2::Format::kLuks})
    if (text == qcow2::to_string(format)) return format;
  return fail(
      Error::invalid(fmt::format("'{}' is not a supported format: use qcow2, raw or luks", text)));
}

CLI::Option* add_format_option(CLI::App& app, const std::string& names,
                               std::optional<qcow2::Format>& target,
                               const std::string& description) {
  return add_parsed_option(app, names, "FMT", target, parse_format, description);
}

}  // namespace vc::tool
