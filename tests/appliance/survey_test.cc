#include "appliance/survey.h"

#include <vector>

#include "tests/catch.h"

using namespace vc;

using appliance::choose;
using appliance::Space;
using appliance::TrimOptions;

namespace {

std::vector<Space> some_spaces() {
  std::vector<Space> spaces(4);
  spaces[0].kind = Space::Kind::kFilesystem;
  spaces[0].device = "/dev/sda1";
  spaces[0].label = "ESP";
  spaces[1].kind = Space::Kind::kFilesystem;
  spaces[1].device = "/dev/vg/root";
  spaces[1].uuid = "1234-5678";
  spaces[2].kind = Space::Kind::kVolumeGroup;
  spaces[2].device = "vg";
  spaces[3].device = "/dev/sda3";
  spaces[3].left_alone = "no known filesystem";
  return spaces;
}

// Returns for each space whether it is chosen.
std::vector<bool> chosen(const std::vector<std::string>& filesystems,
                         const std::vector<std::string>& ignore) {
  TrimOptions options;
  options.filesystems = filesystems;
  options.ignore = ignore;
  auto spaces = some_spaces();
  REQUIRE(choose(options, spaces));
  std::vector<bool> result;
  for (const Space& it : spaces) result.push_back(it.left_alone.empty());
  return result;
}

}  // namespace

TEST_CASE("filesystems are chosen by any of their names") {
  CHECK(chosen({}, {}) == std::vector<bool>{true, true, true, false});
  CHECK(chosen({"sda1"}, {}) == std::vector<bool>{true, false, false, false});
  CHECK(chosen({"LABEL=ESP", "vg"}, {}) == std::vector<bool>{true, false, true, false});
  CHECK(chosen({}, {"UUID=1234-5678"}) == std::vector<bool>{true, false, true, false});
  CHECK(chosen({"/dev/sda1", "/dev/vg/root"}, {"/dev/sda1"}) ==
        std::vector<bool>{false, true, false, false});
}

TEST_CASE("an unknown name is an error that lists the known names") {
  for (const char* name : {"/dev/sda9", "UUID=", "LABEL=", "UUID=1234", ""}) {
    CAPTURE(name);
    TrimOptions options;
    options.ignore = {name};
    auto spaces = some_spaces();
    const auto result = choose(options, spaces);
    REQUIRE(!result);
    CHECK_THAT(result.error().message(), Catch::Contains("/dev/sda1, /dev/vg/root, vg, /dev/sda3"));
  }
}
