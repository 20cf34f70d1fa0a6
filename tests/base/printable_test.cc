#include "base/printable.h"

#include "tests/catch_text.h"

using namespace vc;

TEST_CASE("names cannot control the terminal or begin a line", "[printable]") {
  CHECK(printable("disk.qcow2") == "disk.qcow2");
  CHECK(printable("Größe 日本 😀") == "Größe 日本 😀");
  CHECK(printable("a\nb\x1b[31mc\x7f") == "a\\x0ab\\x1b[31mc\\x7f");
  CHECK(printable(std::string_view("\0", 1)) == "\\x00");
  CHECK(printable("") == "");
}

TEST_CASE("control characters outside of ASCII are escaped, too", "[printable]") {
  CHECK(printable("a\u009b31mb") == "a\\xc2\\x9b31mb");
  CHECK(printable("\u0085\u00a0") == "\\xc2\\x85\u00a0");
  CHECK(printable("a\u2028b\u2029c") == "a\\xe2\\x80\\xa8b\\xe2\\x80\\xa9c");
  for (const char* it : {"\u061c", "\u200e", "\u200f", "\u202a", "\u202e", "\u2066", "\u2069",
                         "\ufeff", "\U000e0001"}) {
    INFO(it);
    CHECK(printable(it).front() == '\\');
  }
}

TEST_CASE("invalid UTF-8 is shown as bytes", "[printable]") {
  CHECK(printable("a\xff"
                  "b") == "a\\xffb");
  CHECK(printable("\x9b") == "\\x9b");  // C1 in Latin-1
  CHECK(printable("Gr\xf6\xdf"
                  "e") == "Gr\\xf6\\xdfe");  // Latin-1
  CHECK(printable("\xc2") == "\\xc2");       // cut off
  CHECK(printable("\xe6\x97") == "\\xe6\\x97");
  CHECK(printable("\xe6"
                  "ab") ==
        "\\xe6"
        "ab");
  CHECK(printable("\xc0\x9b\xc1\xbf") == "\\xc0\\x9b\\xc1\\xbf");  // overlong
  CHECK(printable("\xe0\x82\x9b") == "\\xe0\\x82\\x9b");
  CHECK(printable("\xf0\x80\x82\x9b") == "\\xf0\\x80\\x82\\x9b");
  CHECK(printable("\xed\xa0\x80") == "\\xed\\xa0\\x80");           // a surrogate
  CHECK(printable("\xf4\x90\x80\x80") == "\\xf4\\x90\\x80\\x80");  // past U+10FFFF
  CHECK(printable("\xf4\x8f\xbf\xbd") == "\xf4\x8f\xbf\xbd");
}

TEST_CASE("newlines and tabs of a text are kept", "[printable]") {
  CHECK(printable_lines("a\n\tb\x1b[0m\n\nc\r\n") == "a\n\tb\\x1b[0m\n\nc\\x0d\n");
  CHECK(printable_lines("").empty());
  CHECK(printable_lines("\u202e") == "\\xe2\\x80\\xae");
}
