#include "qcow2/printable.h"

#include "tests/catch_text.h"

using qcow2::printable;

TEST_CASE("names drive no terminal and begin no line", "[printable]") {
  CHECK(printable("disk.qcow2") == "disk.qcow2");
  CHECK(printable("Größe") == "Größe");
  CHECK(printable("a\nb\x1b[31mc\x7f") == "a\\x0ab\\x1b[31mc\\x7f");
  CHECK(printable(std::string_view("\0", 1)) == "\\x00");
}
