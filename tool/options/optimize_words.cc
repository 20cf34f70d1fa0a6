#include "tool/options/optimize_words.h"

#include <fmt/format.h>

#include "tool/text/size_text.h"

namespace vc::tool {

Result<optimize::GainLimit> parse_gain(const std::string& text) {
  optimize::GainLimit limit;
  limit.said = true;
  limit.percent = 0;
  if (text.empty() || text.back() != '%') {
    ASSIGN_OR_RETURN(limit.bytes, parse_size(text));
    return limit;
  }
  ASSIGN_OR_RETURN(const uint64_t percent, parse_number(text.substr(0, text.size() - 1), 0, 100));
  limit.percent = static_cast<double>(percent);
  return limit;
}

Result<optimize::Trimming> parse_trimming(const std::string& text) {
  using optimize::Trimming;
  for (const Trimming it :
       {Trimming::kAuto, Trimming::kMetadata, Trimming::kAppliance, Trimming::kNone})
    if (text == to_string(it)) return it;
  return fail(
      Error::invalid(fmt::format("'{}' is not one of: auto, metadata, appliance, none", text)));
}

}  // namespace vc::tool
