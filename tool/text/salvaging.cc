#include "tool/text/salvaging.h"

#include <fmt/format.h>

namespace vc::tool {

Error advise_salvage(const Error& error, std::string_view advice) {
  if (error.kind() != Error::Kind::kCorrupt) return error;
  return Error::corrupt(fmt::format("{} ({})", error.message(), advice));
}

}  // namespace vc::tool
