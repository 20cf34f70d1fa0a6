#include "qcow2/write/chain_writer.h"
#include "tests/catch.h"

#include "qcow2/read/named_files.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "qcow2/read/chain.h"
#include "storage/user_rights.h"
#include "tests/catch_text.h"
#include "tests/qcow2/tiny_image.h"
#include "tests/support/scratch_folder.h"

using namespace vc;

using namespace qcow2;
using test::TinyImage;

namespace {

// A user ID without an account or a group.
constexpr uid_t kStranger = 1234567;
constexpr uid_t kOther = 1234568;

void write(const std::string& path, const std::vector<std::byte>& bytes, uid_t owner,
           unsigned mode) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  file.close();
  REQUIRE(::chown(path.c_str(), owner, owner) == 0);
  REQUIRE(::chmod(path.c_str(), mode) == 0);
}

std::vector<std::byte> overlay(std::string_view backing, std::string_view format) {
  TinyImage image(12, 4 * 4096);
  image.put64(8, 1024);
  image.put32(16, static_cast<uint32_t>(backing.size()));
  image.put_text(1024, backing);
  image.put_extension(112, HeaderExtension::kBackingFormat, format);
  return image.bytes;
}

std::vector<std::byte> split(std::string_view data_file) {
  TinyImage image(12, 4 * 4096);
  image.set_incompatible(incompatible::kDataFile);
  image.put_extension(112, HeaderExtension::kDataFile, data_file);
  return image.bytes;
}

const std::vector<std::byte> kRaw(4 * 4096, std::byte{7});

Result<Chain> open(const std::string& path, NameRule rule = NameRule::kOwner,
                   bool writable = false) {
  OpenOptions options;
  options.trust.names.backing = rule;
  if (rule == NameRule::kFollow) options.trust.names.data_file = rule;
  options.writable = writable;
  return Chain::open(path, options);
}

// Returns true if the test can act as other users. Otherwise prints that it cannot.
bool is_root() {
  if (::geteuid() == 0) return true;
  WARN("skipped: needs root");
  return false;
}

struct OpenFolder : test::ScratchFolder {
  OpenFolder() { REQUIRE(::chmod(path().c_str(), 0755) == 0); }
};

}  // namespace

TEST_CASE("a backing file is opened if the owner of the image could", "[names]") {
  if (!is_root()) return;
  const OpenFolder folder;
  const std::string top = folder / "top";
  write(top, overlay("base", "raw"), kStranger, 0644);
  SECTION("a file that all users can read") {
    write(folder / "base", kRaw, 0, 0644);
    REQUIRE_OK(open(top));
  }
  SECTION("a file of the owner") {
    write(folder / "base", kRaw, kStranger, 0600);
    REQUIRE_OK(open(top));
  }
  SECTION("a file of root") {
    write(folder / "base", kRaw, 0, 0600);
    REQUIRE_FAILS_WITH(open(top), "uid 1234567 owns " + top + ", which names this file");
    REQUIRE_FAILS_WITH(open(top), "--backing=follow");
    CHECK(open(top).error().errnum() == EACCES);
    REQUIRE_OK(open(top, NameRule::kFollow));
    // The owner of the image counts, not the users who may write to it.
    write(top, overlay("base", "raw"), 0, 0666);
    REQUIRE_OK(open(top));
  }
  SECTION("a file in a folder that the owner cannot search") {
    std::filesystem::create_directory(folder / "private");
    REQUIRE(::chmod((folder / "private").c_str(), 0700) == 0);
    write(folder / "private/base", kRaw, 0, 0644);
    write(top, overlay("private/base", "raw"), kStranger, 0644);
    REQUIRE_FAILS_WITH(open(top), "has no right to read it");
  }
  SECTION("through a symbolic link") {
    write(folder / "secret", kRaw, 0, 0600);
    std::filesystem::create_symlink("secret", folder / "base");
    REQUIRE_FAILS_WITH(open(top), "has no right to read it");
  }
  SECTION("a file that only the group of the image can read") {
    // The group proves nothing: it may come from the folder.
    write(folder / "base", kRaw, 0, 0640);
    REQUIRE(::chown((folder / "base").c_str(), 0, kStranger) == 0);
    REQUIRE_FAILS_WITH(open(top), "has no right to read it");
  }
  SECTION("a missing file") {
    REQUIRE_FAILS_WITH(open(top), "No such file or directory (virt-compact rebase -u");
  }
  SECTION("denied") {
    write(folder / "base", kRaw, 0, 0644);
    REQUIRE_FAILS_WITH(open(top, NameRule::kDeny), "not allowed (--backing=deny)");
  }
}

TEST_CASE("all owners of a chain must have the right to open its last file", "[names]") {
  if (!is_root()) return;
  const OpenFolder folder;
  write(folder / "top", overlay("middle", "qcow2"), kStranger, 0644);
  write(folder / "middle", overlay("base", "raw"), 0, 0644);
  write(folder / "base", kRaw, 0, 0600);
  REQUIRE_OK(open(folder / "middle"));
  REQUIRE_FAILS_WITH(open(folder / "top"), "uid 1234567 owns");
  // One of two owners is not enough.
  write(folder / "middle", overlay("base", "raw"), kOther, 0644);
  write(folder / "base", kRaw, kOther, 0600);
  REQUIRE_OK(open(folder / "middle"));
  REQUIRE_FAILS_WITH(open(folder / "top"), "uid 1234567 owns");
  write(folder / "base", kRaw, kOther, 0604);
  REQUIRE_OK(open(folder / "top"));
}

TEST_CASE("a data file is opened and written if the owner of the image could", "[names]") {
  if (!is_root()) return;
  const OpenFolder folder;
  const std::string image = folder / "image";
  write(image, split("data"), kStranger, 0644);
  write(folder / "data", kRaw, 0, 0600);
  REQUIRE_FAILS_WITH(open(image), "has no right to read it");
  REQUIRE_FAILS_WITH(open(image), "--data-file=follow");
  REQUIRE_OK(open(image, NameRule::kFollow));
  // Write access needs the owner's permission to write.
  write(folder / "data", kRaw, 0, 0644);
  {
    const auto chain = open(image, NameRule::kOwner, true);
    REQUIRE_OK(chain);
    REQUIRE_FAILS_WITH(open_writer(*chain, {}), "has no right to write it");
  }
  const auto trusted = open(image, NameRule::kFollow, true);
  REQUIRE_OK(trusted);
  const auto writer = open_writer(*trusted, {});
  CHECK((writer || writer.error().message().find("may not") == std::string::npos));
}

TEST_CASE("a backing file that is not opened reads as zeros, and nothing is written", "[names]") {
  const test::ScratchFolder folder;
  std::ofstream(folder / "top", std::ios::binary)
      .write(reinterpret_cast<const char*>(overlay("gone", "raw").data()), 8 * 4096);
  REQUIRE_FAILS_WITH(open(folder / "top"), "--backing=none reads the image without this file");
  const auto chain = open(folder / "top", NameRule::kLeaveOut, true);
  REQUIRE_OK(chain);
  CHECK(chain->left_out() == "gone");
  const auto bytes = test::read(chain->disk(), 0, 4 * 4096);
  REQUIRE_OK(bytes);
  CHECK(test::all_are(*bytes, 0));
  REQUIRE_FAILS_WITH(open_writer(*chain, {}), "without its backing file 'gone'");
}

TEST_CASE("the rights of another user apply only to the call", "[names]") {
  if (!is_root()) return;
  const OpenFolder folder;
  write(folder / "secret", kRaw, 0, 0600);
  REQUIRE_FAILS_WITH(open_as(rights_of(kStranger), folder / "secret", O_RDONLY | O_CLOEXEC),
                     "Permission denied");
  CHECK(::geteuid() == 0);
  CHECK(::prctl(PR_GET_DUMPABLE) == 1);
  const int fd = ::open((folder / "secret").c_str(), O_RDONLY | O_CLOEXEC);
  CHECK(fd >= 0);
  ::close(fd);
  CHECK_FALSE(has_more_rights_than(0));
  CHECK(has_more_rights_than(kStranger));
}
