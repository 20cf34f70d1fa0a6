#include "copy/unknown_extensions.h"

#include <fmt/format.h>

namespace vc::copy {

namespace {

using qcow2::HeaderExtension;

// The line names this many at most.
constexpr size_t kMostNamed = 8;

bool is_known(const HeaderExtension& extension) {
  switch (extension.type) {
    case HeaderExtension::kEnd:
    case HeaderExtension::kBackingFormat:
    case HeaderExtension::kFeatureNames:
    case HeaderExtension::kBitmaps:
    case HeaderExtension::kLuks:
    case HeaderExtension::kDataFile:
      return true;
    default:
      return false;
  }
}

}  // namespace

std::string describe_unknown_extensions(const qcow2::Header& header) {
  size_t count = 0;
  std::string types;
  for (const HeaderExtension& it : header.extensions) {
    if (is_known(it) || ++count > kMostNamed) continue;
    types += fmt::format("{}{:#010x}", types.empty() ? "" : ", ", it.type);
  }
  if (count == 0) return "";
  return fmt::format("{} header extension{} of an unknown type ({}{}) {} not copied", count,
                     count == 1 ? "" : "s", types, count > kMostNamed ? ", …" : "",
                     count == 1 ? "is" : "are");
}

}  // namespace vc::copy
