#include "guest/layout/lvm_text.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <utility>

#include "guest/reading/reading.h"

namespace vc::guest {

namespace {

constexpr unsigned kDeepest = 16;

Failure damaged() {
  return doubt("the metadata of its volume group are damaged");
}

}  // namespace

class LvmParser {
 public:
  explicit LvmParser(std::string_view text) : text_(text) {}

  // Parses the content of a section, up to its closing brace or to the end of the text.
  Result<void> body(unsigned depth, LvmSection& section) {
    if (depth > kDeepest) return damaged();
    while (true) {
      RETURN_IF_ERROR(advance());
      if (token_.empty() || token_ == "}")
        return token_.empty() == (depth == 0) ? Result<void>() : damaged();
      const std::string name = token_;
      RETURN_IF_ERROR(advance());
      if (token_ == "{") {
        LvmSection inner;
        RETURN_IF_ERROR(body(depth + 1, inner));
        section.sections_.insert_or_assign(name, std::move(inner));
      } else if (token_ == "=") {
        LvmSection::Value values;
        RETURN_IF_ERROR(value(values));
        section.values_.insert_or_assign(name, std::move(values));
      } else {
        return damaged();
      }
    }
  }

 private:
  static constexpr std::string_view kMarks = "{}[]=,";

  void skip_blanks() {
    while (at_ < text_.size()) {
      if (text_[at_] == '#')
        at_ = std::min(text_.find('\n', at_), text_.size());
      else if (std::isspace(static_cast<unsigned char>(text_[at_])))
        ++at_;
      else
        return;
    }
  }

  // Reads the next token; empty at the end. A quoted token keeps its opening quote.
  Result<void> advance() {
    skip_blanks();
    token_.clear();
    if (at_ == text_.size()) return {};
    if (text_[at_] == '"') return take_quoted();
    if (kMarks.find(text_[at_]) != std::string_view::npos) {
      token_.push_back(text_[at_++]);
      return {};
    }
    while (at_ < text_.size() && kMarks.find(text_[at_]) == std::string_view::npos &&
           text_[at_] != '"' && text_[at_] != '#' &&
           !std::isspace(static_cast<unsigned char>(text_[at_])))
      token_.push_back(text_[at_++]);
    return {};
  }

  Result<void> take_quoted() {
    token_.push_back(text_[at_++]);
    while (at_ < text_.size() && text_[at_] != '"') {
      if (text_[at_] == '\\') ++at_;
      if (at_ == text_.size()) return damaged();
      token_.push_back(text_[at_++]);
    }
    if (at_ == text_.size()) return damaged();
    ++at_;
    return {};
  }

  // Returns the token's value.
  LvmSection::Scalar scalar() const {
    if (token_.starts_with('"')) return token_.substr(1);
    int64_t number = 0;
    const char* const end = token_.data() + token_.size();
    const auto parsed = std::from_chars(token_.data(), end, number);
    if (parsed.ec == std::errc() && parsed.ptr == end) return number;
    return token_;
  }

  bool is_mark() const {
    return token_.empty() || kMarks.find(token_[0]) != std::string_view::npos;
  }

  Result<void> value(LvmSection::Value& values) {
    RETURN_IF_ERROR(advance());
    if (token_ != "[") {
      if (is_mark()) return damaged();
      values.push_back(scalar());
      return {};
    }
    while (true) {
      RETURN_IF_ERROR(advance());
      if (token_ == "]") return {};
      if (token_ == ",") continue;
      if (is_mark()) return damaged();
      values.push_back(scalar());
    }
  }

  const std::string_view text_;
  size_t at_ = 0;
  std::string token_;
};

Result<LvmSection> LvmSection::parse(std::string_view text) {
  LvmSection section;
  RETURN_IF_ERROR(LvmParser(text).body(0, section));
  return section;
}

std::optional<uint64_t> LvmSection::number(const std::string& name) const {
  const Value* const value = list(name);
  if (!value || value->size() != 1) return std::nullopt;
  const int64_t* const number = std::get_if<int64_t>(&value->front());
  if (!number || *number < 0) return std::nullopt;
  return static_cast<uint64_t>(*number);
}

std::optional<std::string> LvmSection::text(const std::string& name) const {
  const Value* const value = list(name);
  if (!value || value->size() != 1) return std::nullopt;
  const std::string* const text = std::get_if<std::string>(&value->front());
  return text ? std::optional(*text) : std::nullopt;
}

const LvmSection::Value* LvmSection::list(const std::string& name) const {
  const auto it = values_.find(name);
  return it == values_.end() ? nullptr : &it->second;
}

const LvmSection* LvmSection::section(const std::string& name) const {
  const auto it = sections_.find(name);
  return it == sections_.end() ? nullptr : &it->second;
}

}  // namespace vc::guest
