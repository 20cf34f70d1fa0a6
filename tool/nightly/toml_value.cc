#include "tool/nightly/toml_value.h"

#include <fmt/format.h>

#include <toml++/toml.h>
#include <algorithm>

#include "base/caught.h"

namespace vc::tool {

namespace {

// A table, its arrays, their tables, and the arrays of these.
constexpr unsigned kDeepest = 4;

using Kind = TomlValue::Kind;

size_t line_of(const toml::source_region& region) {
  return region.begin.line;
}

Result<void> convert(const toml::node& node, TomlValue& value, unsigned depth,
                     const std::string& name);

Result<void> convert_elements(const toml::node& node, TomlValue& value, unsigned depth,
                              const std::string& name) {
  if (depth == kDeepest)
    return fail(Error::invalid(
        fmt::format("{}:{}: is nested too deeply: a policy has tables of keys, and no tables in "
                    "them",
                    name, value.line)));
  if (const toml::array* const array = node.as_array()) {
    value.kind = Kind::kArray;
    for (const toml::node& it : *array) {
      TomlValue element;
      element.line = line_of(it.source());
      RETURN_IF_ERROR(convert(it, element, depth + 1, name));
      value.elements.push_back(std::move(element));
    }
    return {};
  }
  value.kind = Kind::kTable;
  for (const auto& [key, it] : *node.as_table()) {
    TomlValue element;
    element.key = std::string(key.str());
    element.line = line_of(key.source());
    RETURN_IF_ERROR(convert(it, element, depth + 1, name));
    value.elements.push_back(std::move(element));
  }
  std::stable_sort(value.elements.begin(), value.elements.end(),
                   [](const TomlValue& a, const TomlValue& b) { return a.line < b.line; });
  return {};
}

Result<void> convert(const toml::node& node, TomlValue& value, unsigned depth,
                     const std::string& name) {
  if (node.is_array() || node.is_table()) return convert_elements(node, value, depth, name);
  if (const auto* const text = node.as_string()) {
    value.kind = Kind::kString;
    value.text = text->get();
  } else if (const auto* const integer = node.as_integer()) {
    value.kind = Kind::kInteger;
    value.integer = integer->get();
  } else if (const auto* const boolean = node.as_boolean()) {
    value.kind = Kind::kBoolean;
    value.boolean = boolean->get();
  }
  return {};
}

Result<TomlValue> parse(std::string_view text, const std::string& name) {
  try {
    const auto parsed = toml::parse(text);
    const toml::table& table = parsed;
    TomlValue value;
    value.line = 1;
    RETURN_IF_ERROR(convert(table, value, 0, name));
    return value;
  } catch (const toml::parse_error& error) {
    return fail(Error::invalid(
        fmt::format("{}:{}: is not TOML: {}", name, line_of(error.source()), error.description())));
  }
}

}  // namespace

Result<TomlValue> parse_toml(std::string_view text, const std::string& name) {
  if (text.size() > kMostTomlBytes)
    return fail(Error::invalid(
        fmt::format("{}: has more than {} KiB: make it shorter", name, kMostTomlBytes >> 10)));
  if (std::count(text.begin(), text.end(), '.') > static_cast<std::ptrdiff_t>(kMostTomlDots))
    return fail(Error::invalid(
        fmt::format("{}: has more than {} dots: make it shorter", name, kMostTomlDots)));
  return caught(name, [&] { return parse(text, name); });
}

const char* describe(TomlValue::Kind kind) {
  switch (kind) {
    case Kind::kBoolean:
      return "true or false";
    case Kind::kInteger:
      return "a whole number";
    case Kind::kString:
      return "a string";
    case Kind::kArray:
      return "an array";
    case Kind::kTable:
      return "a table";
    case Kind::kOther:
      break;
  }
  return "a number or a date of another kind";
}

}  // namespace vc::tool
