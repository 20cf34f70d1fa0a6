// TOML text as a tree of values, each with its line.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace vc::tool {

struct TomlValue {
  enum class Kind { kBoolean, kInteger, kString, kArray, kTable, kOther };

  Kind kind = Kind::kOther;
  std::string key;  // of the table that has the value; empty: an element of an array
  size_t line = 0;  // of the key, or of the element
  bool boolean = false;
  int64_t integer = 0;
  std::string text;                 // of a string
  std::vector<TomlValue> elements;  // of an array, or of a table in the order of the lines
};

// Limits of a text. Without the second one, nested names could use up the stack of the parser.
inline constexpr size_t kMostTomlBytes = 64 << 10;
inline constexpr size_t kMostTomlDots = 2000;

// Parses `text`. Returns its table. Errors begin with "NAME:LINE: ". Values that are nested deeper
// than a table in an array of a table are errors.
Result<TomlValue> parse_toml(std::string_view text, const std::string& name);

// Returns "a string", "a number" …
const char* describe(TomlValue::Kind kind);

}  // namespace vc::tool
