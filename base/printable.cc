#include "base/printable.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>

namespace vc {

namespace {

struct Range {
  char32_t first;
  char32_t last;
};

// Source: Unicode Standard, 23.1 (control codes), 5.8 (separators), and the Bidi_Control property
// (UAX #9), plus the deprecated format characters.
constexpr std::array kUnprintable{
    Range{0x00, 0x1f},        // C0
    Range{0x7f, 0x9f},        // DEL, C1: some terminals obey U+009B as ESC [
    Range{0x061c, 0x061c},    // Arabic letter mark
    Range{0x200e, 0x200f},    // left-to-right and right-to-left marks
    Range{0x2028, 0x202e},    // separators; embeddings and overrides
    Range{0x2066, 0x206f},    // isolates; deprecated format characters
    Range{0xfeff, 0xfeff},    // byte order mark
    Range{0xfff9, 0xfffb},    // interlinear annotations
    Range{0xe0001, 0xe0001},  // language tag
};

bool is_printable(char32_t character) {
  if ((character & 0xfffe) == 0xfffe) return false;  // a noncharacter, which XML forbids
  return std::none_of(kUnprintable.begin(), kUnprintable.end(), [&](const Range& it) {
    return it.first <= character && character <= it.last;
  });
}

struct Character {
  char32_t value = 0;
  size_t length = 0;  // bytes; 0: ill-formed
};

// Decodes the first character of `text`, which must not be empty.  Overlong forms, surrogates and
// values above U+10FFFF are ill-formed (RFC 3629, section 4).
Character decode(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return {first, 1};
  const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < length) return {};
  char32_t value = first & (0x7fU >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return {};
    value = value << 6 | (byte(i) & 0x3fU);
  }
  constexpr std::array<char32_t, 5> kLowest{0, 0, 0x80, 0x800, 0x10000};
  if (value < kLowest[length] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
    return {};
  return {value, length};
}

}  // namespace

std::string printable(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    const Character next = decode(text);
    const std::string_view bytes = text.substr(0, std::max<size_t>(next.length, 1));
    if (next.length != 0 && is_printable(next.value))
      result += bytes;
    else
      for (const char it : bytes)
        result += fmt::format("\\x{:02x}", static_cast<unsigned char>(it));
    text.remove_prefix(bytes.size());
  }
  return result;
}

std::string printable_lines(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    const size_t end = text.find_first_of("\t\n");
    result += printable(text.substr(0, end));
    if (end == std::string_view::npos) break;
    result += text[end];
    text.remove_prefix(end + 1);
  }
  return result;
}

}  // namespace vc
