#include "storage/page_cache.h"

#include "tests/catch_text.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

TEST_CASE("cached pages of a file are counted, and can be dropped", "[page-cache]") {
  const support::TempDirectory folder;
  const std::string path = folder / "file";
  support::write_file(path, std::string(8 << 20, 'x'));
  const auto written = cached_pages(path);
  REQUIRE(written);
  CHECK(written->length == 8 << 20);
  CHECK(written->cached == 8 << 20);
  CHECK_FALSE(written->sampled);
  REQUIRE(drop_pages(path));
  const auto dropped = cached_pages(path);
  REQUIRE(dropped);
  // A filesystem in memory cannot drop its pages.
  const auto kind = support::run_ok({"stat", "-f", "-c", "%T", path}).out;
  if (kind == "tmpfs\n" || kind == "ramfs\n")
    WARN("this filesystem is in memory: nothing can be dropped");
  else
    CHECK(dropped->cached < 1 << 20);
  CHECK_FALSE(cached_pages(folder.path()));
  CHECK_FALSE(cached_pages(folder / "nowhere"));
  CHECK_FALSE(drop_pages(folder / "nowhere"));
}

TEST_CASE("a long file is checked in samples", "[page-cache]") {
  const support::TempDirectory folder;
  const std::string path = folder / "file";
  support::write_file(path, std::string(1 << 20, 'x'));
  support::resize_file(path, uint64_t{1} << 40);
  const auto pages = cached_pages(path);
  REQUIRE(pages);
  CHECK(pages->sampled);
  CHECK(pages->length == uint64_t{1} << 40);
  CHECK(pages->cached < uint64_t{1} << 32);
}
