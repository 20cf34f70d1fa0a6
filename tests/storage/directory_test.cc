#include "storage/directory.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "tests/catch_text.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

TEST_CASE("no file of a folder is opened through a symbolic link", "[directory]") {
  const support::TempDirectory path;
  support::write_file(path / "file", std::string("x"));
  REQUIRE(::symlink("file", (path / "link").c_str()) == 0);
  REQUIRE(::symlink("nothing", (path / "dangling").c_str()) == 0);
  const auto folder = Directory::open(path.path());
  REQUIRE_OK(folder);
  REQUIRE_OK(folder->open_file("file", O_RDONLY));
  for (const char* const name : {"link", "dangling"})
    for (const int flags : {O_RDONLY, O_WRONLY | O_TRUNC, O_WRONLY | O_CREAT}) {
      CAPTURE(name, flags);
      const auto opened = folder->open_file(name, flags, 0600);
      REQUIRE_FALSE(opened);
      CHECK(opened.error().errnum() == ELOOP);
    }
  CHECK(support::read_file(path / "file").size() == 1);
  CHECK(support::list_directory(path.path()).size() == 3);
}

TEST_CASE("a name holds the file that it refers to, and not the target of a link", "[directory]") {
  const support::TempDirectory path;
  support::write_file(path / "file", std::string("x"));
  support::write_file(path / "other", std::string("x"));
  REQUIRE(::symlink("file", (path / "link").c_str()) == 0);
  REQUIRE(::link((path / "file").c_str(), (path / "same").c_str()) == 0);
  const auto folder = Directory::open(path.path());
  REQUIRE_OK(folder);
  const auto file = folder->open_file("file", O_RDONLY);
  REQUIRE_OK(file);
  const auto identity = FileIdentity::of(file->get());
  CHECK(folder->holds("file", identity));
  CHECK(folder->holds("same", identity));
  CHECK_FALSE(folder->holds("link", identity));
  CHECK_FALSE(folder->holds("other", identity));
  CHECK_FALSE(folder->holds("nothing", identity));
  CHECK_FALSE(folder->holds("nothing", std::nullopt));
}
