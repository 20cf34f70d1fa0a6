#include "tool/report/map_picture.h"

#include <fmt/format.h>

#include "tests/catch_text.h"
#include "tests/interop/image_editor.h"
#include "tests/interop/image_maker.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using qcow2::Extent;
using qcow2::ExtentKind;
using qcow2::HostUse;
using tool::MapPicture;
using tool_test::run_tool;

namespace {

// A picture of a disk of any size has at most this size.
constexpr size_t kMostBytes = 1 << 20;
constexpr size_t kMostElements = 250;

// Checks that an XML parser accepts it.
void check_well_formed(const std::string& svg) {
  const support::TempDirectory folder;
  support::write_file(folder / "picture.svg", svg);
  const auto outcome =
      support::run({"python3", "-c", "import sys, xml.dom.minidom as d; d.parse(sys.argv[1])",
                    folder / "picture.svg"});
  INFO(outcome.describe());
  CHECK(outcome.ok());
  CHECK(svg.size() <= kMostBytes);
  CHECK(static_cast<size_t>(std::count(svg.begin(), svg.end(), '\n')) <= kMostElements);
  CHECK(svg.find("<script") == std::string::npos);
  CHECK(svg.find("href") == std::string::npos);
  CHECK(svg.find("nan") == std::string::npos);
  CHECK(svg.find("inf\"") == std::string::npos);
}

MapPicture::Subject subject(uint64_t size, const std::string& title = "disk.qcow2") {
  return {title, size, size, 65536};
}

Extent extent(ExtentKind kind, uint64_t guest, uint64_t length, uint64_t host) {
  Extent it;
  it.kind = kind;
  it.guest = GuestOffset(guest);
  it.length = length;
  it.host = HostOffset(host);
  it.compressed_length = length / 2;
  return it;
}

size_t count(const std::string& text, const std::string& what) {
  size_t found = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++found;
  return found;
}

}  // namespace

TEST_CASE("data in order is a diagonal in the picture", "[svg]") {
  MapPicture picture(subject(300ull << 20));
  picture.add(extent(ExtentKind::kData, 0, 300ull << 20, 0));
  const std::string svg = picture.svg();
  check_well_formed(svg);
  const auto begin = svg.find("<path class=\"data");
  REQUIRE(begin != std::string::npos);
  // One row of the diagonal each, from the bottom left corner to the top right one.
  const std::string paths = svg.substr(begin, svg.find("<rect class=\"frame\"") - begin);
  CHECK(count(paths, "M92 683h") == 1);
  CHECK(count(paths, "M989 116h3") + count(paths, "M986 116h6") == 1);
  CHECK(count(paths, "M") >= MapPicture::kRows);
}

TEST_CASE("the size of a picture of random data is bounded", "[svg]") {
  MapPicture picture(subject(uint64_t{1} << 44));
  support::Random random(5);
  for (unsigned i = 0; i < 300'000; ++i) {
    const auto kind = random.chance(50) ? ExtentKind::kData : ExtentKind::kCompressed;
    picture.add(extent(kind, random.below(1 << 28) << 16, 65536, random.below(1 << 28) << 16));
    picture.add(HostCluster(random.below(1 << 28)), 1,
                static_cast<HostUse>(random.below(qcow2::kHostUses)));
  }
  check_well_formed(picture.svg());
}

TEST_CASE("the smallest and the largest disks are drawn", "[svg]") {
  for (const uint64_t size : {uint64_t{0}, uint64_t{1}, uint64_t{511}, uint64_t{65536},
                              uint64_t{INT64_MAX}, (uint64_t{1} << 63) - 65536}) {
    CAPTURE(size);
    MapPicture picture(subject(size));
    if (size > 0) {
      picture.add(extent(ExtentKind::kData, 0, size, 0));
      picture.add(HostCluster(0), (size + 65535) / 65536, HostUse::kData);
      picture.add(extent(ExtentKind::kData, size - 1, 1, size));
    }
    check_well_formed(picture.svg());
  }
}

TEST_CASE("a name cannot break the SVG", "[svg]") {
  for (const char* const name :
       {"<script>&\"'", "\x01\xff\xc0\x80\xed\xa0\x80 ü €", "\xef\xbf\xbf"}) {
    MapPicture picture(subject(1 << 20, name));
    check_well_formed(picture.svg());
  }
  MapPicture picture(subject(1 << 20, std::string(5000, 'a') + "\xc3\xa4"));
  check_well_formed(picture.svg());
}

TEST_CASE("pictures of images of every kind are drawn", "[svg]") {
  const uint64_t seed = support::base_seed();
  for (uint64_t i = 0; i < support::iterations(6); ++i) {
    CAPTURE(seed + i);
    support::Random random(seed + i);
    const support::TempDirectory folder;
    const auto image = interop::make_image(random, folder.path());
    const auto outcome = run_tool({"map", "--svg", folder / "picture.svg", image.path});
    INFO(outcome.describe());
    REQUIRE(outcome.ok());
    CHECK(outcome.out.empty());
    check_well_formed(support::run_ok({"cat", folder / "picture.svg"}).out);
  }
}

TEST_CASE("--svg and --output go together, and not with a part of the disk", "[svg]") {
  const support::TempDirectory folder;
  const std::string path = folder / "image.qcow2";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", path, "1M"});
  const std::string picture = folder / "picture.svg";
  const auto both = run_tool({"map", "--output=json", "--svg=" + picture, path});
  CHECK(both.ok());
  CHECK_THAT(both.out, Catch::StartsWith("[{ \"start\": 0, "));
  check_well_formed(support::run_ok({"cat", picture}).out);
  CHECK(run_tool({"map", "-s", "4k", "--svg", picture, path}).exit_code == 1);
  CHECK(run_tool({"map", "--svg", folder / "no/such/folder.svg", path}).exit_code == 1);
  // The picture does not replace the image.
  CHECK(run_tool({"map", "--svg", path, path}).exit_code == 1);
  CHECK(run_tool({"info", path}).ok());
}
