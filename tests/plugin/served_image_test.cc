// Tests the exports of an image, and their names.
#include "plugin/served_image.h"

#include <algorithm>

#include "tests/catch_text.h"
#include "tests/plugin/served_disk.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using Catch::Contains;
using plugin::ServedImage;
using support::TempDirectory;

namespace {

// Makes an image of 1 MiB with snapshots of these names, and with the IDs 1, 2, …
std::string image_with(const TempDirectory& folder, const std::vector<std::string>& snapshots) {
  const std::string image = folder / "disk.qcow2";
  test::qemu_img({"create", "-q", "-f", "qcow2", image, "1M"});
  for (const std::string& name : snapshots) test::qemu_img({"snapshot", "-c", name, image});
  return image;
}

std::vector<std::string> names(const ServedImage& image) {
  std::vector<std::string> names;
  for (const auto& it : image.exports()) names.push_back(it.name);
  return names;
}

Result<std::unique_ptr<ServedImage>> open(const std::string& image,
                                          const std::string& snapshot = "") {
  return ServedImage::open({image, snapshot, {}, {}});
}

}  // namespace

TEST_CASE("each listed export opens the disk that its description describes", "[served-image]") {
  const TempDirectory folder;
  // The second snapshot's name is the first one's ID, and the last two share a name.
  const auto image = open(image_with(folder, {"first", "1", "twin", "twin"}));
  REQUIRE_OK(image);
  CHECK(names(**image) == std::vector<std::string>{"", "snapshot:first", "snapshot:2",
                                                   "snapshot:twin", "snapshot:4"});
  for (const auto& it : (*image)->exports()) {
    INFO(it.name);
    const auto disk = (*image)->disk(it.name);
    REQUIRE_OK(disk);
    CHECK((*disk)->description() == it.description);
  }
  CHECK_THAT((*image)->exports()[1].description, Contains("snapshot 1 'first' of 20"));
  CHECK_THAT((*image)->exports()[4].description, Contains("snapshot 4 'twin' of 20"));
}

TEST_CASE("a snapshot with an unusable name is listed by its id", "[served-image]") {
  const TempDirectory folder;
  const std::string long_name(250, 'n');
  const auto image = open(image_with(folder, {"two\nlines", long_name, "Größe x"}));
  REQUIRE_OK(image);
  CHECK(names(**image) ==
        std::vector<std::string>{"", "snapshot:1", "snapshot:" + long_name, "snapshot:Größe x"});
  CHECK_THAT((*image)->exports()[1].description, Contains("'two\\x0alines'"));
  REQUIRE_OK((*image)->disk("snapshot:two\nlines"));
}

TEST_CASE("snapshot= is an id or a name", "[served-image]") {
  const TempDirectory folder;
  const std::string path = image_with(folder, {"first", "second"});
  for (const char* second : {"2", "second"}) {
    const auto image = open(path, second);
    REQUIRE_OK(image);
    const auto disk = (*image)->disk("");
    REQUIRE_OK(disk);
    CHECK_THAT((*disk)->description(), Contains("snapshot 2 'second'"));
    CHECK((*image)->exports().front().description == (*disk)->description());
  }
  REQUIRE_FAILS_WITH(open(path, "third"), "there is no snapshot 'third'");
}

TEST_CASE("readers of one snapshot share it", "[served-image]") {
  const TempDirectory folder;
  const auto image = open(image_with(folder, {"first", "second"}));
  REQUIRE_OK(image);
  auto by_name = (*image)->disk("snapshot:first");
  REQUIRE_OK(by_name);
  const auto by_id = (*image)->disk("snapshot:1");
  REQUIRE_OK(by_id);
  CHECK(by_name->get() == by_id->get());
  const auto other = (*image)->disk("snapshot:second");
  REQUIRE_OK(other);
  CHECK(other->get() != by_id->get());
  // The image holds no reference to it.
  CHECK(by_name->use_count() == 2);
}

TEST_CASE("other names are errors that name the image", "[served-image]") {
  const TempDirectory folder;
  const auto image = open(image_with(folder, {"first"}));
  REQUIRE_OK(image);
  for (const char* name : {"first", "snapshot", "snapshot:", "snapshot:second", "Snapshot:first"}) {
    INFO(name);
    REQUIRE_FAILS_WITH((*image)->disk(name), "disk.qcow2: there is no ");
  }
}
