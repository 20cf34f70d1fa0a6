#include "copy/source/overlay_map.h"

#include "copy/source/local_source.h"
#include "tests/catch_text.h"
#include "tests/support/process.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using copy::LocalSource;
using qcow2::Extent;
using qcow2::ExtentKind;
using support::run_ok;

namespace {

constexpr uint64_t kKiB = 1024;

}  // namespace

TEST_CASE("data on top of a backing file is reported in whole units", "[overlay_map]") {
  const support::TempDirectory folder;
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", folder / "base", "1M"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 1M", folder / "base"});
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "-b", "base", "-F",
          "qcow2", folder / "middle"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 2 100k 4k", folder / "middle"});
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "-b", "middle", "-F",
          "qcow2", folder / "top"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -z 256k 64k", "-c", "write -q -P 3 1020k 4k",
          folder / "top"});
  auto source = LocalSource::open(folder / "top", {});
  REQUIRE_OK(source);
  REQUIRE_FAILS_WITH((*source)->keep_backing(folder / "top", 64 * kKiB),
                     "is not a backing file of");
  const auto format = (*source)->keep_backing(folder / "base", 64 * kKiB);
  REQUIRE_OK(format);
  CHECK(*format == "qcow2");

  std::vector<Extent> extents;
  for (uint64_t at = 0; at < 1024 * kKiB; at = extents.back().end().value())
    REQUIRE_OK((*source)->map(GuestOffset(at), 1024 * kKiB - at, extents));
  // Units 1, 4 and 15 belong to the copy, the others to the backing file.
  uint64_t end = 0;
  for (const Extent& extent : extents) {
    CHECK(extent.guest.value() == end);
    end = extent.end().value();
    const uint64_t unit = extent.guest.value() / (64 * kKiB);
    const bool copied = unit == 1 || unit == 4 || unit == 15;
    CHECK(copied == (extent.kind != ExtentKind::kUnallocated));
    if (unit == 4) CHECK(extent.kind == ExtentKind::kZero);
    if (copied) CHECK((extent.end().value() - 1) / (64 * kKiB) == unit);
  }
  CHECK(end == 1024 * kKiB);
}
