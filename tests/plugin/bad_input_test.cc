// An invalid configuration is reported before the server starts: in one line, with an exit code.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "tests/catch.h"
#include "tests/plugin/served_disk.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using Catch::Contains;
using support::TempDirectory;

namespace {

void check_refused(const std::vector<std::string>& arguments, const std::string& why) {
  const auto outcome = test::try_to_serve(arguments);
  INFO(outcome.describe());
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err, Contains(why));
  CHECK(std::count(outcome.err.begin(), outcome.err.end(), '\n') == 1);
}

}  // namespace

TEST_CASE("files that are not images are refused", "[plugin]") {
  if (!test::server_ends()) {
    WARN("skipped: nbdkit does not end with a sanitizer's library in it");
    return;
  }
  const TempDirectory folder;
  SECTION("missing") {
    check_refused({folder / "none"}, "none: No such file or directory");
  }
  SECTION("a directory") {
    check_refused({folder / "."}, "is a directory, not a disk image");
  }
  SECTION("a FIFO") {
    REQUIRE(mkfifo((folder / "fifo").c_str(), 0600) == 0);
    check_refused({folder / "fifo"}, "is a FIFO");
  }
  SECTION("empty") {
    support::write_file(folder / "empty", std::string());
    check_refused({folder / "empty"}, "the file is empty");
  }
  SECTION("raw") {
    std::ofstream(folder / "raw") << std::string(100000, 'x');
    check_refused({folder / "raw"}, "not a QCOW2 image");
  }
  SECTION("compressed") {
    std::ofstream(folder / "disk.qcow2") << std::string(
                                                "\xfd"
                                                "7zXZ\0",
                                                6) +
                                                "and so on";
    check_refused({folder / "disk.qcow2"}, "compressed with xz: decompress it first (xz -dk ");
  }
  SECTION("a truncated header") {
    test::qemu_img({"create", "-q", "-f", "qcow2", folder / "disk", "1M"});
    support::run_ok({"truncate", "-s", "90", folder / "disk"});
    check_refused({folder / "disk"}, "the header is truncated");
  }
}

TEST_CASE("root does not serve a file that an image of another user names", "[plugin]") {
  if (!test::server_ends() || ::geteuid() != 0) {
    WARN("skipped: needs root, and nbdkit does not end with a sanitizer's library in it");
    return;
  }
  const TempDirectory folder;
  REQUIRE(::chmod(folder.path().c_str(), 0755) == 0);
  const std::string secret = folder / "secret", top = folder / "top", split = folder / "split";
  test::qemu_img({"create", "-q", "-f", "raw", secret, "1M"});
  test::qemu_img({"create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", top});
  test::qemu_img(
      {"create", "-q", "-f", "qcow2", "-o", "data_file=" + (folder / "data"), split, "1M"});
  for (const auto& it : {secret, folder / "data"}) REQUIRE(::chmod(it.c_str(), 0600) == 0);
  for (const auto& it : {top, split}) REQUIRE(::chown(it.c_str(), 65534, 65534) == 0);
  check_refused({top}, "has no right to read it (to trust the image, use backing=follow)");
  check_refused({split}, "has no right to read it (to trust the image, use data-file=follow)");
  CHECK(test::try_to_serve({top, "backing=follow"}).ok());
  CHECK(test::try_to_serve({split, "data-file=follow"}).ok());
  CHECK(test::try_to_serve({top, "backing=none"}).ok());
}

TEST_CASE("an untrusted image is served within limits", "[plugin]") {
  if (!test::server_ends()) {
    WARN("skipped: nbdkit does not end with a sanitizer's library in it");
    return;
  }
  const TempDirectory folder;
  test::qemu_img({"create", "-q", "-f", "qcow2", folder / "base", "1M"});
  test::qemu_img({"create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", folder / "top"});
  test::qemu_img({"create", "-q", "-f", "qcow2", folder / "large", "17T"});
  CHECK(test::try_to_serve({folder / "base", "untrusted=true"}).ok());
  CHECK(test::try_to_serve({folder / "top", "untrusted=true", "backing=none"}).ok());
  check_refused({folder / "top", "untrusted=true"}, "which is not allowed (backing=deny)");
  check_refused({folder / "top", "untrusted=true", "backing=follow"}, "omit backing=");
  check_refused({folder / "large", "untrusted=true"}, "limit for untrusted images");
  check_refused({folder / "base", "data-file=none"}, "the value must be owner, follow or deny");
}

TEST_CASE("chains that cannot be followed are refused", "[plugin]") {
  if (!test::server_ends()) {
    WARN("skipped: nbdkit does not end with a sanitizer's library in it");
    return;
  }
  const TempDirectory folder;
  test::qemu_img({"create", "-q", "-f", "qcow2", folder / "base", "1M"});
  test::qemu_img(
      {"create", "-q", "-f", "qcow2", "-b", folder / "base", "-F", "qcow2", folder / "top"});
  SECTION("denied") {
    check_refused({folder / "top", "backing=deny"}, "which is not allowed");
    // The base alone can be served.
    CHECK(test::try_to_serve({folder / "base", "backing=deny"}).ok());
  }
  SECTION("a denied data file") {
    const std::string image = folder / "split";
    test::qemu_img(
        {"create", "-q", "-f", "qcow2", "-o", "data_file=" + (folder / "data"), image, "1M"});
    CHECK(test::try_to_serve({image}).ok());
    check_refused({image, "backing=deny"},
                  "data': the image names this file, which is not allowed");
  }
  SECTION("missing") {
    support::run_ok({"rm", folder / "base"});
    check_refused({folder / "top"}, "base: No such file or directory");
  }
}

TEST_CASE("names are relative to the current folder, and to the image as the user names it",
          "[plugin]") {
  if (!test::server_ends()) {
    WARN("skipped: nbdkit does not end with a sanitizer's library in it");
    return;
  }
  const TempDirectory folder;
  support::run_ok({"mkdir", folder / "images", folder / "links"});
  test::qemu_img({"create", "-q", "-f", "qcow2", folder / "images/base", "1M"});
  test::qemu_img({"create", "-q", "-f", "qcow2", "-b", folder / "images/base", "-F", "qcow2",
                  folder / "images/top"});
  test::qemu_img({"rebase", "-u", "-b", "base", "-F", "qcow2", folder / "images/top"});
  support::run_ok({"ln", "-s", "../images/top", folder / "links/top"});
  CHECK(test::try_to_serve({"images/top"}, folder.path()).ok());
  CHECK(test::try_to_serve({"file=top"}, folder / "images").ok());
  CHECK(test::try_to_serve({"../images/top"}, folder / "links").ok());
  // QEMU resolves the name relative to the link, too.
  check_refused({folder / "links/top"}, "links/base: No such file or directory");
}

TEST_CASE("bad parameters are refused", "[plugin]") {
  if (!test::server_ends()) {
    WARN("skipped: nbdkit does not end with a sanitizer's library in it");
    return;
  }
  const TempDirectory folder;
  const std::string image = folder / "disk";
  test::qemu_img({"create", "-q", "-f", "qcow2", image, "1M"});
  check_refused({}, "no image is given: give its path");
  check_refused({image, "file=" + image}, "file= is given twice");
  check_refused({"file="}, "empty path");
  check_refused({image, "backing=may\nbe"}, "backing=may\\x0abe: the value must be");
  check_refused({image, "backing=maybe"},
                "backing=maybe: the value must be owner, follow, deny or none");
  check_refused({image, "cache-size=1k"}, "cache-size=1k: the value must be at least 64K");
  check_refused({image, "cache-size=lots"}, "could not parse");
  check_refused({image, "snapshot="}, "snapshot= is empty");
  check_refused({image, "snapshot=none"}, "there is no snapshot 'none'");
  check_refused({image, "force-share=perhaps"}, "could not decipher boolean (perhaps)");
  check_refused({image + "2", "create=true", "size=1M", "force-share=true"},
                "no other process uses a new image");
  check_refused({image, "colour=blue"}, "unknown parameter 'colour'");
}
