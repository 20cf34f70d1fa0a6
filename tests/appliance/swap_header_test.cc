#include "appliance/swap_header.h"

#include <string>

#include "tests/catch.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using appliance::SwapHeader;

namespace {

std::string start_of(const std::string& path) {
  const auto bytes = support::RawFile(path).read(0, SwapHeader::kKept);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

TEST_CASE("swap made by mkswap is recognised for every page size") {
  const support::TempDirectory folder;
  const std::string path = folder / "swap";
  for (const char* page : {"4096", "65536"}) {
    support::write_file(path, std::string());
    support::resize_file(path, 4 << 20);
    support::run_ok({"mkswap", "-q", "-p", page, "-L", "nap", path});
    const std::string start = start_of(path);
    CHECK(SwapHeader::is_in(start));
    CHECK(SwapHeader::without_session(start) == start);
  }
  CHECK(!SwapHeader::is_in(std::string(SwapHeader::kKept, '\0')));
  CHECK(!SwapHeader::is_in(""));
}

TEST_CASE("a saved session in swap is detected, and can be removed") {
  const support::TempDirectory folder;
  const std::string path = folder / "swap";
  support::write_file(path, std::string());
  support::resize_file(path, 4 << 20);
  support::run_ok({"mkswap", "-q", path});
  const std::string plain = start_of(path);
  std::string suspended = plain;
  suspended.replace(4096 - 10, 10, std::string("S1SUSPEND\0", 10));
  CHECK(SwapHeader::is_in(suspended));
  CHECK(SwapHeader::without_session(suspended) == plain);
}
