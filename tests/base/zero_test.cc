#include "base/zero_bytes.h"

#include <vector>

#include "tests/catch_text.h"

using namespace vc;

TEST_CASE("a single set bit anywhere is found", "[zero]") {
  // An odd start and length, so that all loops of the scan and their ends are tested.
  std::vector<std::byte> buffer(3 * 256 + 37 + 1);
  for (size_t length : {0u, 1u, 7u, 8u, 9u, 255u, 256u, 257u, 805u}) {
    const std::span<std::byte> bytes = std::span(buffer).subspan(1, length);
    CHECK(is_zero(bytes));
    for (size_t at = 0; at < length; ++at) {
      bytes[at] = std::byte{0x80};
      CHECK_FALSE(is_zero(bytes));
      bytes[at] = std::byte{0};
    }
  }
}

TEST_CASE("neighbours of the buffer do not matter", "[zero]") {
  std::vector<std::byte> buffer(600, std::byte{1});
  for (size_t at = 10; at < 590; ++at) buffer[at] = std::byte{0};
  CHECK(is_zero(std::span(buffer).subspan(10, 580)));
  CHECK_FALSE(is_zero(std::span(buffer).subspan(9, 580)));
  CHECK_FALSE(is_zero(std::span(buffer).subspan(11, 580)));
}
