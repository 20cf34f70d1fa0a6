// Tests the undo file, and other files with its name.
#include "qcow2/repair/undo_file.h"

#include <filesystem>

#include "tests/catch_text.h"
#include "tests/support/memory_storage.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

namespace vc::checks {

namespace fs = std::filesystem;
using qcow2::UndoFile;

namespace {

std::string content(const std::string& path) {
  const auto bytes = support::read_file(path);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

TEST_CASE("an undo file replaces no other file, and follows no link", "[repair]") {
  const support::TempDirectory folder;
  const std::string path = folder / "undo";
  const std::string victim = folder / "victim";
  const qcow2::MemoryStorage image("image", std::vector<std::byte>(4096));
  support::write_file(victim, std::string("an earlier one"));
  SECTION("a file") {
    fs::rename(victim, path);
    REQUIRE_FAILS_WITH(UndoFile::create(path, image), "exists already");
    CHECK(content(path) == "an earlier one");
  }
  SECTION("a link to a file") {
    fs::create_symlink("victim", path);
    REQUIRE_FAILS_WITH(UndoFile::create(path, image), "exists already");
    CHECK(content(victim) == "an earlier one");
  }
  SECTION("a link to nothing") {
    fs::create_symlink("nothing", path);
    REQUIRE_FAILS_WITH(UndoFile::create(path, image), "exists already");
    CHECK_FALSE(fs::exists(folder / "nothing"));
  }
}

TEST_CASE("removing an undo file removes no other file", "[repair]") {
  const support::TempDirectory folder;
  const std::string path = folder / "undo";
  const qcow2::MemoryStorage image("image", std::vector<std::byte>(4096));
  const auto undo = UndoFile::create(path, image);
  REQUIRE_OK(undo);
  SECTION("the name still belongs to it") {
    (*undo)->remove();
    CHECK_FALSE(fs::exists(path));
  }
  SECTION("another file has the name") {
    fs::rename(path, folder / "elsewhere");
    support::write_file(path, std::string("somebody else's"));
    (*undo)->remove();
    CHECK(content(path) == "somebody else's");
    CHECK(fs::exists(folder / "elsewhere"));
  }
}

}  // namespace vc::checks
