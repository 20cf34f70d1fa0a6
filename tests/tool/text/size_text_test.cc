#include "tool/text/size_text.h"

#include "tests/catch_text.h"

using namespace tool;

TEST_CASE("sizes are shown with three digits and a binary unit", "[size_text]") {
  CHECK(human_size(0) == "0 B");
  CHECK(human_size(999) == "999 B");
  CHECK(human_size(1000) == "0.977 KiB");
  CHECK(human_size(1024) == "1 KiB");
  CHECK(human_size(1536) == "1.5 KiB");
  CHECK(human_size(388 << 10) == "388 KiB");
  CHECK(human_size(1023 << 10) == "0.999 MiB");
  CHECK(human_size(uint64_t{20} << 30) == "20 GiB");
  CHECK(human_size(10952345600) == "10.2 GiB");
  CHECK(human_size(UINT64_MAX) == "16 EiB");
}

TEST_CASE("sizes are parsed with and without units", "[size_text]") {
  const auto [text, bytes] = GENERATE(table<std::string, uint64_t>({
      {"0", 0},
      {"512", 512},
      {"512b", 512},
      {"64k", 64 << 10},
      {"64K", 64 << 10},
      {"2M", 2 << 20},
      {"1.5G", uint64_t{3} << 29},
      {"0.0625M", 64 << 10},
      {"0.5k", 512},
      {"0x10000", 65536},
      {"0Xff", 255},
      {"1T", uint64_t{1} << 40},
      {"15E", uint64_t{15} << 60},
      {"15.99999999999999999999999E", UINT64_MAX},
      {"18446744073709551615", UINT64_MAX},
  }));
  CAPTURE(text);
  const auto parsed = parse_size(text);
  REQUIRE_OK(parsed);
  CHECK(*parsed == bytes);
}

TEST_CASE("invalid sizes are refused", "[size_text]") {
  const auto text =
      GENERATE(as<std::string>(), "", "k", "-1", "+1", " 1", "1 ", "1 k", "1kk", "64KiB", "64kB",
               "1.k", ".5k", "1.5.5k", "1e3", "0x", "0x1k", "0xg", "1,5k", "12x", "1.-5k", "1.5",
               "1.5b", "18446744073709551616", "16E", "0x10000000000000000", "17179869184G");
  CAPTURE(text);
  REQUIRE_FAILS_WITH(parse_size(text), "'" + text + "' is ");
}

TEST_CASE("numbers outside of their limits are refused", "[size_text]") {
  REQUIRE_OK(parse_number("1", 1, 16));
  CHECK(parse_number("16", 1, 16) == 16u);
  for (const char* text : {"0", "17", "", "x", "1x", "-1", "0x1", "1.0", "99999999999999999999"}) {
    CAPTURE(text);
    REQUIRE_FAILS_WITH(parse_number(text, 1, 16), "is not a whole number from 1 to 16");
  }
}
