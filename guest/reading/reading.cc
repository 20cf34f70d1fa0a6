#include "guest/reading/reading.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <utility>

namespace vc::guest {

namespace {

void append_utf8(std::string& out, uint32_t code) {
  const auto put = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code < 0x80) return put(code);
  if (code < 0x800) {
    put(0xC0 | code >> 6);
    return put(0x80 | (code & 0x3F));
  }
  if (code < 0x10000) {
    put(0xE0 | code >> 12);
  } else {
    put(0xF0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3F));
  }
  put(0x80 | (code >> 6 & 0x3F));
  put(0x80 | (code & 0x3F));
}

bool is_surrogate(uint32_t code, uint32_t first) {
  return code >= first && code < first + 0x400;
}

}  // namespace

Failure doubt(std::string why) {
  return fail(Error::unsupported(std::move(why)));
}

Failure unclean(std::string why) {
  return fail(Error::protocol(EUCLEAN, std::move(why)));
}

bool is_unclean(const Error& error) {
  return error.errnum() == EUCLEAN;
}

Result<std::vector<FoundFile>> no_swap_files(const ByteView& /*view*/, const Ranges& /*free*/,
                                             const FileKinds& kinds) {
  if (kinds.swap) return doubt("its swap files are found only in the appliance");
  return std::vector<FoundFile>();
}

Reading left_alone(std::string why) {
  Reading reading;
  reading.verdict = Reading::Verdict::kLeftAlone;
  reading.why = std::move(why);
  return reading;
}

Reading suspended(std::string why) {
  Reading reading;
  reading.verdict = Reading::Verdict::kSuspended;
  reading.why = std::move(why);
  return reading;
}

std::string uuid_text(const Fields& bytes) {
  return fmt::format("{:08x}-{:04x}-{:04x}-{:04x}-{:04x}{:08x}", bytes.be32(0), bytes.be16(4),
                     bytes.be16(6), bytes.be16(8), bytes.be16(10), bytes.be32(12));
}

std::string guid_text(const Fields& bytes) {
  return fmt::format("{:08x}-{:04x}-{:04x}-{:04x}-{:04x}{:08x}", bytes.le32(0), bytes.le16(4),
                     bytes.le16(6), bytes.be16(8), bytes.be16(10), bytes.be32(12));
}

std::string padded_text(const Fields& bytes) {
  std::string text(bytes.text(0, bytes.size()));
  text.resize(std::min(text.find('\0'), text.size()));
  text.resize(text.find_last_not_of(' ') + 1);
  return text;
}

std::string lower_text(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

std::string utf16_text(const Fields& bytes) {
  std::string text;
  for (size_t at = 0; at + 2 <= bytes.size(); at += 2) {
    uint32_t code = bytes.le16(at);
    if (code == 0) break;
    const uint32_t next = bytes.le16(at + 2);
    if (is_surrogate(code, 0xD800) && is_surrogate(next, 0xDC00)) {
      code = 0x10000 + ((code - 0xD800) << 10) + (next - 0xDC00);
      at += 2;
    } else if (is_surrogate(code, 0xD800) || is_surrogate(code, 0xDC00)) {
      code = 0xFFFD;
    }
    append_utf8(text, code);
  }
  return text;
}

}  // namespace vc::guest
