#include "libvirt/xml_scanner.h"

#include <sstream>

#include "tests/catch_text.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using libvirt::XmlScanner;

namespace {

// Records all calls.
class Notes final : public XmlScanner::Handler {
 public:
  explicit Notes(std::string_view text) : text_(text) {}
  Result<void> start(const libvirt::XmlTag& tag) override {
    said += "<" + slice(tag.name);
    for (const auto& it : tag.attributes)
      said += " " + slice(it.name) + "=" + libvirt::decode_value(slice(it.value));
    said += tag.empty ? "/" : "";
    CHECK(slice(tag.whole).front() == '<');
    CHECK(slice(tag.whole).back() == '>');
    return {};
  }
  Result<void> end() override {
    said += ">";
    return {};
  }
  std::string said;

 private:
  std::string slice(libvirt::Stretch it) const {
    return std::string(text_.substr(it.begin, it.end - it.begin));
  }
  std::string_view text_;
};

// Returns the recorded calls, or the error.
std::string scan(std::string_view text) {
  Notes notes(text);
  const auto done = XmlScanner(text, "x").scan(notes);
  return done ? notes.said : done.error().message();
}

}  // namespace

TEST_CASE("tags and attributes are found, whatever is around them", "[xml]") {
  CHECK(scan("<a/>") == "<a/>");
  CHECK(
      scan(
          "\xef\xbb\xbf<?xml version='1.0' encoding=\"UTF-8\"?>\n<!-- <b> --><a></a>\n<?p <c>?>") ==
      "<a>");
  CHECK(scan("<a b='1'  c = \"2'&gt;&#x41;&#10;\"><![CDATA[<x>]]>t&amp;<n:d/></a >") ==
        "<a b=1 c=2'>A\n<n:d/>>");
  CHECK(scan("<a b='x\ny\tz'/>") == "<a b=x y z/>");
  CHECK(scan("<\xc3\xa9 b='\xe2\x82\xac'/>") == "<\xc3\xa9 b=\xe2\x82\xac/>");
  CHECK(libvirt::decode_value("&#xe9;&#8364;&#x1f600;") == "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
}

TEST_CASE("malformed XML is an error that names the line", "[xml]") {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "there is no element"},
      {"<a>", "the text ends inside of <a>"},
      {"<a>\n</b>", "x: line 2: </b> does not match <a>"},
      {"<a/><b/>", "a second root element"},
      {"<a/>x", "text outside of the root element"},
      {"x<a/>", "text outside of the root element"},
      {"<a b='1' b='2'/>", "attribute 'b' is repeated"},
      {"<a b='1'c='2'/>", "no space before an attribute"},
      {"<a b=1/>", "a value without quotes"},
      {"<a b/>", "an attribute without '='"},
      {"<a b='<'/>", "'<' inside of a value"},
      {"<a b='1", "a value has no end"},
      {"<a", "a tag has no end"},
      {"<a>&x;</a>", "'&' does not begin a known reference"},
      {"<a b='&'/>", "'&' does not begin a known reference"},
      {"<a>&#0;</a>", "'&' does not begin a known reference"},
      {"<a>&#xd800;</a>", "'&' does not begin a known reference"},
      {"<a>]]></a>", "']]>' in text"},
      {"<a><!-- x -- y --></a>", "'--' inside of a comment"},
      {"<a><!-- x</a>", "the comment has no end"},
      {"<a><![CDATA[</a>", "the CDATA section has no end"},
      {"<a><?p </a>", "the processing instruction has no end"},
      {"<a><?xml version='1.0'?></a>", "an XML declaration that is not at the start"},
      {"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "a DOCTYPE is not allowed"},
      {"<?xml encoding='utf-8'?><a/>", "declaration is invalid"},
      {"<?xml version='1.0' x='1'?><a/>", "declaration is invalid"},
      {"<?xml version='2.0'?><a/>", "the version of XML is not 1.0"},
      {"<?xml ?><a/>", "names no version"},
      {"<a><?p&?></a>", "no space after"},
      {"<1/>", "a name is missing"},
      {"</a>", "</a> has no start tag"},
      {"<a>\x01</a>", "byte 0x01 is not allowed"},
      {std::string("<a>\0</a>", 8), "byte 0x00 is not allowed"},
      {"<a>\xff</a>", "this is not UTF-8"},
      {"<a>\xc0\x80</a>", "this is not UTF-8"},
      {"<a>\xed\xa0\x80</a>", "this is not UTF-8"},
      {"<a>\xe2\x82", "this is not UTF-8"},
      {"\xff\xfe<\0a", "UTF-16 is not supported"},
      {"<?xml version='1.0' encoding='UTF-16'?><a/>", "encoding 'utf-16' is not supported"},
      {"<?xml version='1.0' encoding='utf-7'?><a/>", "encoding 'utf-7' is not supported"},
  };
  for (const auto& [text, message] : cases) {
    CAPTURE(text);
    CHECK_THAT(scan(text), Catch::Contains(message));
  }
}

TEST_CASE("XML that is made to take much work is refused without delay", "[xml]") {
  const auto repeated = [](const std::string& text, size_t count) {
    std::string all;
    for (size_t i = 0; i < count; ++i) all += text;
    return all;
  };
  CHECK_THAT(scan(repeated("<a>", 1000000)),
             Catch::Contains("more than 256 levels of nested elements"));
  CHECK_THAT(scan("<a " + repeated("b='' ", 1000) + "/>"), Catch::Contains("more than 256"));
  CHECK_THAT(scan(std::string(XmlScanner::kMaxSize + 1, ' ')),
             Catch::Contains("more than 16777216"));
  // A search to the end from each position would take quadratic time.
  CHECK_THAT(scan("<a>" + repeated("<b/>x", 500000) + "&amp;"), Catch::Contains("ends inside of"));
  CHECK_THAT(scan("<a>" + repeated("&amp;", 1000000)), Catch::Contains("ends inside of"));
  CHECK_THAT(scan("<a>" + repeated("<!-- -->", 1000000)), Catch::Contains("ends inside of"));
}

TEST_CASE("randomly damaged XML is accepted only if libxml2 accepts it", "[xml]") {
  const std::string good =
      "<?xml version=\"1.0\"?>\n<domain type='kvm' xmlns:q=\"u\">\n  <!-- c -->\n  "
      "<name>a&amp;b</name>\n"
      "  <devices><disk a='&#65;'/><![CDATA[]]><q:x y=\"'\">t</q:x></devices>\n</domain>\n";
  REQUIRE(scan(good).find("line") == std::string::npos);
  const support::TempDirectory folder;
  const uint64_t seed = support::base_seed();
  std::vector<std::string> accepted;
  std::vector<std::string> command = {"xmllint", "--nonet", "--noout"};
  for (uint64_t i = 0; i < support::iterations(400); ++i) {
    support::Random random(seed + i);
    std::string text = good;
    for (uint64_t hits = random.between(1, 2); hits > 0; --hits) {
      const size_t at = random.below(text.size());
      const std::string bytes = "<>&;'\"/!-[]?x =\n\xc3#";
      switch (random.below(3)) {
        case 0:
          text[at] = bytes[random.below(bytes.size())];
          break;
        case 1:
          text.erase(at, random.between(1, 4));
          break;
        default:
          text.insert(at, 1, bytes[random.below(bytes.size())]);
      }
    }
    Notes notes(text);
    if (!XmlScanner(text, "x").scan(notes)) continue;
    const std::string path = folder / std::to_string(seed + i);
    support::write_file(path, text);
    command.push_back(path);
  }
  REQUIRE(command.size() > 3);
  const auto outcome = support::run(command);
  INFO(outcome.describe());
  // The scanner ignores namespaces, and accepts any name with characters outside of ASCII.
  std::string errors;
  std::istringstream lines(outcome.err);
  for (std::string line; std::getline(lines, line);)
    if (line.find("parser error") != std::string::npos) errors += line + "\n";
  CHECK(errors.empty());
}
