#include "qcow2/read/file_holes.h"

#include "copy/source/local_source.h"
#include "tests/catch_text.h"
#include "tests/copy/disks.h"
#include "tests/support/process.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using copy::LocalSource;
using qcow2::Extent;
using qcow2::ExtentKind;
using qcow2::FileHoles;
using support::run_ok;

namespace {

std::vector<Extent> map_of(const std::string& path) {
  auto source = LocalSource::open(path, {});
  REQUIRE_OK(source);
  const uint64_t size = (*source)->size();
  std::vector<Extent> extents;
  for (uint64_t at = 0; at < size; at = extents.back().end().value())
    REQUIRE_OK((*source)->map(GuestOffset(at), size - at, extents));
  uint64_t end = 0;
  for (const Extent& extent : extents) {
    CHECK(extent.guest.value() == end);
    end = extent.end().value();
  }
  CHECK(end == size);
  return extents;
}

}  // namespace

TEST_CASE("clusters that were never written are zeros", "[file_holes]") {
  const support::TempDirectory folder;
  const std::string image = folder / "image";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", image, "8G"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 1 1G 128k", "-c", "write -q -P 2 3G 4k",
          image});
  uint64_t data = 0;
  for (const Extent& extent : map_of(image)) {
    if (extent.kind == ExtentKind::kZero) continue;
    CHECK(extent.kind == ExtentKind::kData);
    data += extent.length;
    const uint64_t at = extent.guest.value();
    CHECK((at == uint64_t{1} << 30 || at == uint64_t{3} << 30));
  }
  // All written data, and at most the rest of its filesystem blocks.
  CHECK(data >= (128 << 10) + 4096);
  CHECK(data <= (128 << 10) + (64 << 10));

  const auto done = test::run_copy(test::from_to(image, folder / "copy"));
  REQUIRE_OK(done);
  run_ok({"qemu-img", "check", "-q", folder / "copy"});
  run_ok({"qemu-img", "compare", "-q", image, folder / "copy"});
  CHECK(done->data_clusters == 3);
  CHECK(done->found_zero_clusters == 0);
}

TEST_CASE("short holes are read, and a map has a limit", "[file_holes]") {
  const support::TempDirectory folder;
  const std::string image = folder / "image";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", image, "64M"});
  std::vector<std::string> command{"qemu-io", "-f", "qcow2"};
  for (unsigned i = 0; i < 100; ++i) {
    command.emplace_back("-c");
    command.push_back("write -q -P 1 " + std::to_string(i * 20) + "k 4k");
  }
  command.push_back(image);
  run_ok(command);
  const auto extents = map_of(image);
  CHECK(extents.size() == 2);
  CHECK(extents.front().kind == ExtentKind::kData);

  auto chain = qcow2::Chain::open(image, {});
  REQUIRE_OK(chain);
  const qcow2::Disk& disk = chain->disk();
  for (const size_t limit : {1, 2, 3}) {
    std::vector<Extent> some;
    REQUIRE_OK(disk.map(GuestOffset(0), disk.size(), some));
    FileHoles holes;
    REQUIRE_OK(holes.split(disk, some, 0, limit));
    CHECK(some.size() == std::min<size_t>(limit, 2));
    CHECK(some.front().guest == GuestOffset(0));
  }
}

TEST_CASE("a truncated file does not count as a file with holes", "[file_holes]") {
  const support::TempDirectory folder;
  const std::string image = folder / "image";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", image, "64M"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 4M", image});
  run_ok({"truncate", "-s", "2M", image});
  REQUIRE_FAILS_WITH(test::run_copy(test::from_to(image, folder / "copy")), "truncated");
}

TEST_CASE("a hole at the end of a file does not hide missing clusters", "[file_holes]") {
  const support::TempDirectory folder;
  const std::string image = folder / "image";
  run_ok(
      {"qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", image, "512M"});
  run_ok({"truncate", "-s", "256M", image});
  const auto done = test::run_copy(test::from_to(image, folder / "copy"));
  REQUIRE(!done);
  CHECK_THAT(done.error().message(), Catch::Contains("end of the file"));
}
