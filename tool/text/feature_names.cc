#include "tool/text/feature_names.h"

#include <fmt/format.h>

namespace vc::tool {

namespace {

using qcow2::HeaderExtension;

// QCOW2 specification, "Feature name table": kind, bit, and 46 bytes of name.
constexpr size_t kEntry = 48;

std::string name_in(const HeaderExtension* table, FeatureKind kind, unsigned bit) {
  for (size_t at = 0; table && at + kEntry <= table->data.size(); at += kEntry) {
    const std::byte* const entry = &table->data[at];
    if (std::to_integer<uint8_t>(entry[0]) != static_cast<uint8_t>(kind) ||
        std::to_integer<unsigned>(entry[1]) != bit)
      continue;
    std::string name(reinterpret_cast<const char*>(entry + 2), kEntry - 2);
    name.resize(std::min(name.find('\0'), name.size()));
    return name;
  }
  return {};
}

}  // namespace

std::vector<std::string> feature_names(const qcow2::Header& header, FeatureKind kind) {
  const HeaderExtension ours = qcow2::feature_name_table();
  uint64_t bits = header.incompatible_features;
  if (kind == FeatureKind::kCompatible) bits = header.compatible_features;
  if (kind == FeatureKind::kAutoclear) bits = header.autoclear_features;
  std::vector<std::string> names;
  for (unsigned bit = 0; bit < 64; ++bit) {
    if ((bits >> bit & 1) == 0) continue;
    std::string name = name_in(header.find_extension(HeaderExtension::kFeatureNames), kind, bit);
    if (name.empty()) name = name_in(&ours, kind, bit);
    if (name.empty()) name = fmt::format("unknown bit {}", bit);
    names.push_back(std::move(name));
  }
  return names;
}

}  // namespace vc::tool
