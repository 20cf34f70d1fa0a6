#include "tool/options/reflink_option.h"

#include <fmt/format.h>

namespace vc::tool {

Result<copy::Reflink> parse_reflink(const std::string& text) {
  if (text == "auto") return copy::Reflink::kAuto;
  if (text == "always") return copy::Reflink::kAlways;
  if (text == "never") return copy::Reflink::kNever;
  return fail(Error::invalid(fmt::format("'{}' is not one of: auto, always, never", text)));
}

}  // namespace vc::tool
