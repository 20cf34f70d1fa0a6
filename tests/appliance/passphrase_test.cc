#include "appliance/passphrase.h"

#include "tests/catch.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using appliance::parse_passphrase;

TEST_CASE("keys have the syntax of the virt-* tools") {
  const auto plain = parse_passphrase("/dev/sda2:key:a:b c");
  REQUIRE(plain);
  CHECK(plain->selector == "/dev/sda2");
  CHECK(plain->text == "a:b c");

  const support::TempDirectory folder;
  support::write_file(folder / "key", std::string("secret\nsecond line\n"));
  const auto file = parse_passphrase("all:file:" + (folder / "key"));
  REQUIRE(file);
  CHECK(file->selector == "all");
  CHECK(file->text == "secret");
}

TEST_CASE("invalid keys are refused, and not printed") {
  for (const char* text : {"", "secret", ":key:secret", "/dev/sda2:secret", "/dev/sda2:kye:secret",
                           "/dev/sda2:clevis:secret"}) {
    CAPTURE(text);
    const auto parsed = parse_passphrase(text);
    REQUIRE(!parsed);
    CHECK_THAT(parsed.error().message(), !Catch::Contains("secret"));
  }
  const auto missing = parse_passphrase("all:file:/nowhere/at/all");
  REQUIRE(!missing);
  CHECK_THAT(missing.error().message(), Catch::Contains("/nowhere/at/all"));
}
