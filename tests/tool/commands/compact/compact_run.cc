#include "tests/tool/commands/compact/compact_run.h"

#include "tests/catch_text.h"
#include "tests/support/raw_file.h"

namespace vc::compact_test {

using nlohmann::json;
using support::run_ok;

std::vector<std::vector<std::byte>> states_of(const support::TempDirectory& folder,
                                              const std::string& disk) {
  run_ok({"qemu-img", "convert", "-O", "raw", disk, folder / "raw0"});
  run_ok({"qemu-img", "convert", "-O", "raw", "-l", "first", disk, folder / "raw1"});
  return {support::read_file(folder / "raw0"), support::read_file(folder / "raw1")};
}

json summary(const support::Outcome& outcome) {
  INFO(outcome.describe());
  REQUIRE(outcome.ok());
  json answer = json::parse(outcome.out, nullptr, false);
  REQUIRE(answer.is_object());
  return answer;
}

}  // namespace vc::compact_test
