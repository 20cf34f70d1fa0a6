// XML that knows where in the text everything stands, so that a part can be changed and the rest
// stays byte for byte.
//
// Takes documents as libvirt writes them, and as people edit those: no DOCTYPE, hence no entities
// but the five of XML's own, and nothing that is fetched from anywhere.  What is not well-formed is
// an error that names the line.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace tune {

// [begin, end) of the text, bytes.
struct Stretch {
  size_t begin = 0;
  size_t end = 0;
  friend bool operator==(const Stretch&, const Stretch&) = default;
};

struct XmlAttribute {
  Stretch name;
  Stretch value;     // between the quotes, as it stands there
  char quote = '"';  // or '\''
};

// A start tag.
struct XmlTag {
  Stretch name;
  std::vector<XmlAttribute> attributes;
  Stretch whole;       // "<" to ">"
  bool empty = false;  // "<name/>": no end tag follows
};

// Goes through a document once.
class XmlScanner {
 public:
  static constexpr size_t kMaxSize = 16 << 20;   // bytes
  static constexpr size_t kMaxDepth = 256;       // elements inside of each other
  static constexpr size_t kMaxAttributes = 256;  // of one element

  // `text` outlives the scanner; `name` is what to call it in messages.
  XmlScanner(std::string_view text, std::string name) : text_(text), name_(std::move(name)) {}

  class Handler {
   public:
    virtual ~Handler() = default;
    // In the order of the document; each start () has its end (), also that of an empty element.
    virtual qcow2::Result<void> start(const XmlTag& tag) = 0;
    virtual qcow2::Result<void> end() = 0;
  };
  qcow2::Result<void> scan(Handler& handler);

  // Counted from 1.
  size_t line_of(size_t at) const;
  // An error that names document and line.
  qcow2::Failure error(size_t at, std::string_view what) const;

 private:
  qcow2::Result<void> check_bytes();
  qcow2::Result<void> read_declaration();
  qcow2::Result<std::string> read_encoding();
  qcow2::Result<void> read_markup(Handler& handler);
  qcow2::Result<void> read_start(Handler& handler);
  qcow2::Result<void> read_end(Handler& handler);
  qcow2::Result<void> read_attribute(XmlTag& tag);
  qcow2::Result<void> read_text();
  qcow2::Result<void> skip_until(std::string_view end, size_t from, std::string_view what);
  qcow2::Result<void> check_references(Stretch stretch) const;
  qcow2::Result<Stretch> read_name();
  void skip_space();
  bool looking_at(std::string_view what) const { return text_.substr(at_).starts_with(what); }
  std::string_view slice(Stretch it) const { return text_.substr(it.begin, it.end - it.begin); }

  const std::string_view text_;
  const std::string name_;
  size_t at_ = 0;
  std::vector<Stretch> open_;  // names of the elements that are open
  bool root_seen_ = false;
};

// What the text between an attribute's quotes means: references resolved, white space made spaces.
std::string decode_value(std::string_view raw);

}  // namespace tune
