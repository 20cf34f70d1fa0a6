#include "libvirt/xml_scanner.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <set>
#include <utility>

namespace vc::libvirt {

namespace {

constexpr std::string_view kSpace = " \t\r\n";
constexpr std::array<std::pair<std::string_view, char>, 5> kEntities{
    {{"lt", '<'}, {"gt", '>'}, {"amp", '&'}, {"quot", '"'}, {"apos", '\''}}};

bool is_space(char c) {
  return kSpace.find(c) != std::string_view::npos;
}

bool starts_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == ':' ||
         static_cast<unsigned char>(c) >= 0x80;
}

bool continues_name(char c) {
  return starts_name(c) || (c >= '0' && c <= '9') || c == '-' || c == '.';
}

// Returns the length of the UTF-8 sequence at the start of `text`; 0 if it is invalid (RFC 3629).
size_t utf8_length(std::string_view text) {
  const auto byte = [&](size_t i) -> unsigned {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0;
  };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  const size_t length = first >= 0xc2 && first < 0xe0   ? 2
                        : first >= 0xe0 && first < 0xf0 ? 3
                        : first >= 0xf0 && first < 0xf5 ? 4
                                                        : 0;
  for (size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xc0) != 0x80) return 0;
  if (first == 0xe0 && byte(1) < 0xa0) return 0;
  if (first == 0xed && byte(1) > 0x9f) return 0;
  if (first == 0xf0 && byte(1) < 0x90) return 0;
  if (first == 0xf4 && byte(1) > 0x8f) return 0;
  return length;
}

// Returns the code point of "#10" or "#xa". nullopt if XML does not permit it.
std::optional<uint32_t> code_point(std::string_view reference) {
  if (!reference.starts_with('#')) return std::nullopt;
  reference.remove_prefix(1);
  const bool hex = reference.starts_with('x');
  if (hex) reference.remove_prefix(1);
  uint32_t value = 0;
  const auto [end, error] =
      std::from_chars(reference.data(), reference.data() + reference.size(), value, hex ? 16 : 10);
  if (error != std::errc() || end != reference.data() + reference.size()) return std::nullopt;
  const bool control = value < 0x20 && value != '\t' && value != '\n' && value != '\r';
  const bool surrogate = value >= 0xd800 && value < 0xe000;
  if (control || surrogate || value > 0x10ffff || value == 0xfffe || value == 0xffff)
    return std::nullopt;
  return value;
}

void append_utf8(std::string& text, uint32_t value) {
  const auto tail = [&](unsigned shift) {
    text += static_cast<char>(0x80 | ((value >> shift) & 0x3f));
  };
  if (value < 0x80) {
    text += static_cast<char>(value);
  } else if (value < 0x800) {
    text += static_cast<char>(0xc0 | (value >> 6));
    tail(0);
  } else if (value < 0x10000) {
    text += static_cast<char>(0xe0 | (value >> 12));
    tail(6);
    tail(0);
  } else {
    text += static_cast<char>(0xf0 | (value >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

// `name`: in lower case. Returns true if markup in that encoding is ASCII, and no other bytes look
// like markup.
bool is_supported_encoding(std::string_view name) {
  return name == "utf-8" || name == "utf8" || name == "us-ascii" || name == "ascii" ||
         name.starts_with("iso-8859-") || name.starts_with("windows-125");
}

}  // namespace

const XmlAttribute* find_attribute(std::string_view text, const XmlTag& tag,
                                   std::string_view name) {
  for (const XmlAttribute& it : tag.attributes)
    if (text.substr(it.name.begin, it.name.end - it.name.begin) == name) return &it;
  return nullptr;
}

std::string attribute_value(std::string_view text, const XmlTag& tag, std::string_view name) {
  const XmlAttribute* const it = find_attribute(text, tag, name);
  if (!it) return "";
  return decode_value(text.substr(it->value.begin, it->value.end - it->value.begin));
}

std::string decode_value(std::string_view raw) {
  std::string value;
  for (size_t i = 0; i < raw.size(); ++i) {
    if (raw[i] != '&') {
      value += is_space(raw[i]) ? ' ' : raw[i];
      continue;
    }
    const size_t end = raw.find(';', i);
    const std::string_view name = raw.substr(i + 1, end - i - 1);
    const auto entity = std::find_if(kEntities.begin(), kEntities.end(),
                                     [&](const auto& it) { return it.first == name; });
    if (entity != kEntities.end())
      value += entity->second;
    else if (const auto point = code_point(name))
      append_utf8(value, *point);
    if (end == std::string_view::npos) break;
    i = end;
  }
  return value;
}

size_t XmlScanner::line_of(size_t at) const {
  const auto end = text_.begin() + static_cast<std::ptrdiff_t>(std::min(at, text_.size()));
  return static_cast<size_t>(std::count(text_.begin(), end, '\n')) + 1;
}

Failure XmlScanner::error(size_t at, std::string_view what) const {
  return fail(Error::invalid(fmt::format("{}: line {}: {}", name_, line_of(at), what)));
}

void XmlScanner::skip_space() {
  while (at_ < text_.size() && is_space(text_[at_])) ++at_;
}

Result<void> XmlScanner::check_bytes() {
  if (text_.size() > kMaxSize)
    return fail(Error::invalid(fmt::format(
        "{}: has more than {} bytes, too many for a domain definition", name_, kMaxSize)));
  if (text_.starts_with("\xfe\xff") || text_.starts_with("\xff\xfe"))
    return fail(Error::unsupported(name_ + ": UTF-16 is not supported: save it as UTF-8"));
  for (size_t i = 0; i < text_.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text_[i]);
    if (byte < 0x20 && !is_space(text_[i]))
      return error(i, fmt::format("byte {:#04x} is not allowed in XML", byte));
  }
  return {};
}

// Reads <?xml version='1.0' encoding='…' standalone='…'?>, of which the last two are optional.
Result<std::string> XmlScanner::read_encoding() {
  const size_t begin = at_;
  if (!starts_with("<?xml") || at_ + 5 >= text_.size() || !is_space(text_[at_ + 5])) return "utf-8";
  at_ += 5;
  XmlTag words;
  for (skip_space(); at_ < text_.size() && !starts_with("?>"); skip_space()) {
    if (!is_space(text_[at_ - 1])) return error(at_, "no space in the XML declaration");
    RETURN_IF_ERROR(read_attribute(words));
  }
  if (!starts_with("?>")) return error(begin, "the XML declaration has no end");
  at_ += 2;
  constexpr std::array<std::string_view, 3> kOrder{"version", "encoding", "standalone"};
  size_t next = 0;
  std::string encoding = "utf-8";
  for (const XmlAttribute& word : words.attributes) {
    const std::string_view name = slice(word.name);
    const std::string_view value = slice(word.value);
    while (next < kOrder.size() && kOrder[next] != name && next != 0) ++next;
    if (next == kOrder.size() || kOrder[next] != name)
      return error(begin, "the XML declaration is invalid");
    if (next == 0 && value != "1.0" && value != "1.1")
      return error(begin, "the version of XML is not 1.0");
    if (next == 1) encoding = value;
    if (next == 2 && value != "yes" && value != "no")
      return error(begin, "the XML declaration is invalid");
    ++next;
  }
  if (next == 0) return error(begin, "the XML declaration names no version");
  return encoding;
}

Result<void> XmlScanner::read_declaration() {
  if (starts_with("\xef\xbb\xbf")) at_ += 3;
  ASSIGN_OR_RETURN(std::string encoding, read_encoding());
  std::transform(encoding.begin(), encoding.end(), encoding.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  if (!is_supported_encoding(encoding))
    return error(
        0, fmt::format("encoding '{}' is not supported: save it as UTF-8", encoding.substr(0, 40)));
  const bool utf8 = encoding == "utf-8" || encoding == "utf8";
  for (size_t i = 0; utf8 && i < text_.size();) {
    const size_t length = utf8_length(text_.substr(i, 4));
    if (length == 0) return error(i, "this is not UTF-8");
    i += length;
  }
  return {};
}

Result<void> XmlScanner::scan(Handler& handler) {
  RETURN_IF_ERROR(check_bytes());
  RETURN_IF_ERROR(read_declaration());
  while (at_ < text_.size()) {
    if (text_[at_] == '<')
      RETURN_IF_ERROR(read_markup(handler));
    else
      RETURN_IF_ERROR(read_text());
  }
  if (!open_.empty())
    return error(text_.size(), fmt::format("the text ends inside of <{}>", slice(open_.back())));
  if (!root_seen_) return error(0, "there is no element");
  return {};
}

Result<void> XmlScanner::read_text() {
  const size_t end = std::min(text_.find('<', at_), text_.size());
  const Stretch text{at_, end};
  if (open_.empty()) {
    skip_space();
    if (at_ < end) return error(at_, "text outside of the root element");
    return {};
  }
  if (slice(text).find("]]>") != std::string_view::npos) return error(at_, "']]>' in text");
  RETURN_IF_ERROR(check_references(text));
  at_ = end;
  return {};
}

Result<void> XmlScanner::read_markup(Handler& handler) {
  if (starts_with("<!--")) {
    const size_t begin = at_;
    RETURN_IF_ERROR(skip_until("--", at_ + 4, "the comment"));
    if (!starts_with(">")) return error(begin, "'--' inside of a comment");
    ++at_;
    return {};
  }
  if (starts_with("<![CDATA[")) {
    if (open_.empty()) return error(at_, "CDATA outside of the root element");
    return skip_until("]]>", at_ + 9, "the CDATA section");
  }
  if (starts_with("<!")) return error(at_, "a DOCTYPE is not allowed in a domain definition");
  if (starts_with("<?")) {
    const size_t begin = at_;
    at_ += 2;
    ASSIGN_OR_RETURN(const Stretch target, read_name());
    if (slice(target) == "xml") return error(begin, "an XML declaration that is not at the start");
    if (!starts_with("?>") && at_ < text_.size() && !is_space(text_[at_]))
      return error(at_, "no space after the name of a processing instruction");
    return skip_until("?>", at_, "the processing instruction");
  }
  if (starts_with("</")) return read_end(handler);
  return read_start(handler);
}

Result<void> XmlScanner::skip_until(std::string_view end, size_t from, std::string_view what) {
  const size_t found = text_.find(end, from);
  if (found == std::string_view::npos) return error(at_, fmt::format("{} has no end", what));
  at_ = found + end.size();
  return {};
}

Result<Stretch> XmlScanner::read_name() {
  const size_t begin = at_;
  if (at_ >= text_.size() || !starts_name(text_[at_])) return error(at_, "a name is missing");
  while (at_ < text_.size() && continues_name(text_[at_])) ++at_;
  return Stretch{begin, at_};
}

Result<void> XmlScanner::check_references(Stretch stretch) const {
  // Limits the search to a slice: searching the whole document for each text would take quadratic
  // time.
  const std::string_view text = slice(stretch);
  for (size_t at = text.find('&'); at != std::string_view::npos; at = text.find('&', at + 1)) {
    const size_t end = text.find(';', at);
    const std::string_view name =
        end != std::string_view::npos ? text.substr(at + 1, end - at - 1) : std::string_view();
    const bool known = std::any_of(kEntities.begin(), kEntities.end(),
                                   [&](const auto& it) { return it.first == name; });
    if (!known && !code_point(name))
      return error(stretch.begin + at, "'&' does not begin a known reference");
  }
  return {};
}

Result<void> XmlScanner::read_attribute(XmlTag& tag) {
  XmlAttribute attribute;
  if (tag.attributes.size() == kMaxAttributes)
    return error(at_, fmt::format("more than {} attributes", kMaxAttributes));
  ASSIGN_OR_RETURN(attribute.name, read_name());
  skip_space();
  if (!starts_with("=")) return error(at_, "an attribute without '='");
  ++at_;
  skip_space();
  if (!starts_with("'") && !starts_with("\"")) return error(at_, "a value without quotes");
  attribute.quote = text_[at_++];
  const size_t end = text_.find(attribute.quote, at_);
  if (end == std::string_view::npos) return error(at_, "a value has no end");
  attribute.value = {at_, end};
  if (slice(attribute.value).find('<') != std::string_view::npos)
    return error(at_, "'<' inside of a value");
  RETURN_IF_ERROR(check_references(attribute.value));
  at_ = end + 1;
  tag.attributes.push_back(attribute);
  return {};
}

Result<void> XmlScanner::read_start(Handler& handler) {
  XmlTag tag;
  tag.whole.begin = at_++;
  if (open_.empty() && root_seen_) return error(tag.whole.begin, "a second root element");
  if (open_.size() == kMaxDepth)
    return error(tag.whole.begin, fmt::format("more than {} levels of nested elements", kMaxDepth));
  ASSIGN_OR_RETURN(tag.name, read_name());
  while (true) {
    const size_t before = at_;
    skip_space();
    if (at_ == text_.size()) return error(tag.whole.begin, "a tag has no end");
    tag.empty = starts_with("/>");
    if (tag.empty || starts_with(">")) break;
    if (at_ == before) return error(at_, "no space before an attribute");
    RETURN_IF_ERROR(read_attribute(tag));
  }
  at_ += tag.empty ? 2 : 1;
  tag.whole.end = at_;
  std::set<std::string_view> names;
  for (const XmlAttribute& it : tag.attributes)
    if (!names.insert(slice(it.name)).second)
      return error(it.name.begin, fmt::format("attribute '{}' is repeated", slice(it.name)));
  root_seen_ = true;
  RETURN_IF_ERROR(handler.start(tag));
  if (tag.empty) return handler.end();
  open_.push_back(tag.name);
  return {};
}

Result<void> XmlScanner::read_end(Handler& handler) {
  const size_t begin = at_;
  at_ += 2;
  ASSIGN_OR_RETURN(const Stretch name, read_name());
  skip_space();
  if (!starts_with(">")) return error(begin, "an end tag has no end");
  ++at_;
  if (open_.empty() || slice(open_.back()) != slice(name))
    return error(begin, open_.empty() ? fmt::format("</{}> has no start tag", slice(name))
                                      : fmt::format("</{}> does not match <{}>", slice(name),
                                                    slice(open_.back())));
  open_.pop_back();
  return handler.end();
}

}  // namespace vc::libvirt
