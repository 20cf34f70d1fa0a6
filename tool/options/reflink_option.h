// --reflink of the commands that write a fresh image or disk.
#pragma once

#include <string>

#include "base/result.h"
#include "copy/source/reflink.h"
#include "tool/options/arguments.h"

namespace vc::tool {

Result<copy::Reflink> parse_reflink(const std::string& text);

// Adds --reflink. `target`: a Reflink, or an optional one; it must outlive `app`.
template <typename Target>
CLI::Option* add_reflink_option(CLI::App& app, Target& target) {
  return add_parsed_option(app, "--reflink", "WHEN", target, parse_reflink,
                           "share blocks with the source: auto, always, never");
}

}  // namespace vc::tool
