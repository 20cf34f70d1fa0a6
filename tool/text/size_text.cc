#include "tool/text/size_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cctype>
#include <charconv>
#include <cmath>
#include <optional>

namespace vc::tool {

namespace {

constexpr std::string_view kUnits = "BKMGTPE";  // unit n is 1024^n bytes

// Parses all of `text` as an unsigned number of that base.
std::optional<uint64_t> whole_number(std::string_view text, int base) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

std::string human_size(uint64_t bytes) {
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  // 1000, not 1024: four digits do not fit into three.
  while (value >= 1000 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.3g} {}iB", value, kUnits[unit]);
}

Result<uint64_t> parse_size(std::string_view text) {
  const auto refuse = [&](std::string_view why) {
    return fail(Error::invalid(fmt::format("'{}' {}", text, why)));
  };
  constexpr std::string_view kNoSize = "is not a size, such as 65536, 64k or 1.5G";
  if (text.substr(0, 2) == "0x" || text.substr(0, 2) == "0X") {
    const auto value = whole_number(text.substr(2), 16);
    if (!value) return refuse(kNoSize);
    return *value;
  }

  std::string_view number = text;
  std::optional<size_t> unit;
  if (!number.empty()) {
    const char last = static_cast<char>(std::toupper(static_cast<unsigned char>(number.back())));
    const size_t at = kUnits.find(last);
    if (at != std::string_view::npos) {
      unit = at;
      number.remove_suffix(1);
    }
  }
  const size_t point = number.find('.');
  const auto whole = whole_number(number.substr(0, point), 10);
  if (!whole) return refuse(kNoSize);
  const unsigned shift = static_cast<unsigned>(unit.value_or(0) * 10);
  if (*whole > UINT64_MAX >> shift) return refuse("is too large a size");
  uint64_t bytes = *whole << shift;

  if (point != std::string_view::npos) {
    const std::string_view digits = number.substr(point + 1);
    // Further digits do not change a size, and would overflow.
    const auto fraction = whole_number(digits.substr(0, 18), 10);
    if (!fraction || !std::all_of(digits.begin(), digits.end(),
                                  [](unsigned char c) { return std::isdigit(c) != 0; }))
      return refuse(kNoSize);
    if (shift == 0) return refuse("is not a whole number of bytes");
    const double part = static_cast<double>(*fraction) /
                        std::pow(10.0, static_cast<double>(std::min<size_t>(digits.size(), 18)));
    // A double rounds 0.99…9 up to 1. Adds less than one unit, so that the sum cannot overflow.
    const uint64_t unit_size = uint64_t{1} << shift;
    bytes += std::min(static_cast<uint64_t>(part * static_cast<double>(unit_size)), unit_size - 1);
  }
  return bytes;
}

Result<uint64_t> parse_power_of_two(const std::string& text, uint64_t low, uint64_t high,
                                    const char* range) {
  ASSIGN_OR_RETURN(const uint64_t value, parse_size(text));
  if (!std::has_single_bit(value) || value < low || value > high)
    return fail(Error::invalid(fmt::format("'{}' is not a power of two {}", text, range)));
  return value;
}

Result<uint64_t> parse_number(std::string_view text, uint64_t low, uint64_t high) {
  const auto value = whole_number(text, 10);
  if (!value || *value < low || *value > high)
    return fail(
        Error::invalid(fmt::format("'{}' is not a whole number from {} to {}", text, low, high)));
  return *value;
}

}  // namespace vc::tool
