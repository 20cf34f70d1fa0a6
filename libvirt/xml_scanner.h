// An XML scanner that records text positions, so that a part can be changed while the rest stays
// byte for byte.
//
// Accepts documents as libvirt writes them and as people edit them: no DOCTYPE, so only XML's
// five predefined entities, and no external references. Returns an error with the line if the
// document is not well-formed.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace vc::libvirt {

// The range [begin, end) of the text, bytes.
struct Stretch {
  size_t begin = 0;
  size_t end = 0;
  friend bool operator==(const Stretch&, const Stretch&) = default;
};

struct XmlAttribute {
  Stretch name;
  Stretch value;     // between the quotes, undecoded
  char quote = '"';  // or '\''
};

// A start tag.
struct XmlTag {
  Stretch name;
  std::vector<XmlAttribute> attributes;
  Stretch whole;       // from "<" to ">"
  bool empty = false;  // "<name/>": no end tag follows
};

// Finds an attribute of a tag of the document `text`; nullptr: there is none.
const XmlAttribute* find_attribute(std::string_view text, const XmlTag& tag, std::string_view name);
// Returns the decoded value of an attribute; empty: there is none.
std::string attribute_value(std::string_view text, const XmlTag& tag, std::string_view name);

// Scans a document once.
class XmlScanner {
 public:
  static constexpr size_t kMaxSize = 16 << 20;   // bytes
  static constexpr size_t kMaxDepth = 256;       // of nested elements
  static constexpr size_t kMaxAttributes = 256;  // of one element

  // `text` must outlive the scanner. `name` is for messages.
  XmlScanner(std::string_view text, std::string name) : text_(text), name_(std::move(name)) {}

  class Handler {
   public:
    virtual ~Handler() = default;
    // Called in document order. Each start() has a matching end(), also for empty elements.
    virtual Result<void> start(const XmlTag& tag) = 0;
    virtual Result<void> end() = 0;
  };
  Result<void> scan(Handler& handler);

  // Returns the line of offset `at`, counted from 1.
  size_t line_of(size_t at) const;
  // Returns an error that names the document and the line.
  Failure error(size_t at, std::string_view what) const;

 private:
  Result<void> check_bytes();
  Result<void> read_declaration();
  Result<std::string> read_encoding();
  Result<void> read_markup(Handler& handler);
  Result<void> read_start(Handler& handler);
  Result<void> read_end(Handler& handler);
  Result<void> read_attribute(XmlTag& tag);
  Result<void> read_text();
  Result<void> skip_until(std::string_view end, size_t from, std::string_view what);
  Result<void> check_references(Stretch stretch) const;
  Result<Stretch> read_name();
  void skip_space();
  bool starts_with(std::string_view what) const { return text_.substr(at_).starts_with(what); }
  std::string_view slice(Stretch it) const { return text_.substr(it.begin, it.end - it.begin); }

  const std::string_view text_;
  const std::string name_;
  size_t at_ = 0;
  std::vector<Stretch> open_;  // names of open elements
  bool root_seen_ = false;
};

// Decodes an attribute value: resolves references and replaces white space with spaces.
std::string decode_value(std::string_view raw);

}  // namespace vc::libvirt
