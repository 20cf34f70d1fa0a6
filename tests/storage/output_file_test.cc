#include "storage/output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string>

#include "base/aligned_buffer.h"
#include "storage/hidden_file.h"
#include "tests/catch_text.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using support::list_directory;
using support::TempDirectory;

namespace {

using Names = std::vector<std::string>;

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string text_of(const std::string& path) {
  const auto bytes = support::read_file(path);
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

mode_t mode_of(const std::string& path) {
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  return status.st_mode & 07777;
}

ino_t inode_of(const std::string& path) {
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  return status.st_ino;
}

}  // namespace

TEST_CASE("an output file appears only with commit", "[copy]") {
  const TempDirectory folder;
  auto file = OutputFile::create(folder / "out", false);
  REQUIRE_OK(file);
  REQUIRE_OK((*file)->write(HostOffset(0), bytes_of("hello")));
  CHECK(list_directory(folder.path()).empty());
  REQUIRE_OK((*file)->commit());
  file->reset();
  CHECK(list_directory(folder.path()) == Names{"out"});
  CHECK(text_of(folder / "out") == "hello");
}

TEST_CASE("an output file that is not committed leaves nothing", "[copy]") {
  const TempDirectory folder;
  support::write_file(folder / "old", "old");
  for (const char* name : {"out", "old"}) {
    auto file = OutputFile::create(folder / name, true);
    REQUIRE_OK(file);
    REQUIRE_OK((*file)->write(HostOffset(0), bytes_of("new")));
  }
  CHECK(list_directory(folder.path()) == Names{"old"});
  CHECK(text_of(folder / "old") == "old");
}

TEST_CASE("an output file has the permissions of any new file", "[copy]") {
  const TempDirectory folder;
  const mode_t before = ::umask(027);
  auto file = OutputFile::create(folder / "out", false);
  REQUIRE_OK(file);
  REQUIRE_OK((*file)->commit());
  ::umask(before);
  CHECK(mode_of(folder / "out") == 0640);
}

TEST_CASE("an existing file is not overwritten", "[copy]") {
  const TempDirectory folder;
  support::write_file(folder / "file", "old");
  REQUIRE(::symlink("nowhere", (folder / "dangling").c_str()) == 0);
  REQUIRE(::mkfifo((folder / "fifo").c_str(), 0600) == 0);
  REQUIRE(::mkdir((folder / "folder").c_str(), 0700) == 0);
  for (const char* name : {"file", "dangling", "fifo", "folder"}) {
    INFO(name);
    REQUIRE_FAILS_WITH(OutputFile::create(folder / name, false), folder / name);
  }
  CHECK(text_of(folder / "file") == "old");
}

TEST_CASE("only a regular file is replaced", "[copy]") {
  const TempDirectory folder;
  REQUIRE(::mkfifo((folder / "fifo").c_str(), 0600) == 0);
  REQUIRE(::mkdir((folder / "folder").c_str(), 0700) == 0);
  REQUIRE(::symlink("fifo", (folder / "link").c_str()) == 0);
  REQUIRE_FAILS_WITH(OutputFile::create(folder / "fifo", true), "regular file");
  REQUIRE_FAILS_WITH(OutputFile::create(folder / "link", true), "regular file");
  REQUIRE_FAILS_WITH(OutputFile::create(folder / "folder", true), "directory");
  REQUIRE_FAILS_WITH(OutputFile::create("/dev/null", true), "regular file");
}

TEST_CASE("a file that appears in the meantime is not overwritten", "[copy]") {
  const TempDirectory folder;
  for (const bool overwrite : {false, true}) {
    const std::string path = folder / (overwrite ? "a" : "b");
    auto file = OutputFile::create(path, overwrite);
    REQUIRE_OK(file);
    support::write_file(path, "somebody else's");
    // Even with overwrite, because the file did not exist when the overwrite was requested.
    const auto committed = (*file)->commit();
    REQUIRE_FALSE(committed.has_value());
    CHECK(committed.error().errnum() == EEXIST);
    CHECK(text_of(path) == "somebody else's");
  }
  CHECK(list_directory(folder.path()) == Names{"a", "b"});
}

TEST_CASE("the new file gets the permissions of the replaced file, which is unchanged until then",
          "[copy]") {
  const TempDirectory folder;
  support::write_file(folder / "out", "old");
  REQUIRE(::chmod((folder / "out").c_str(), 0604) == 0);
  const ino_t inode = inode_of(folder / "out");
  auto file = OutputFile::create(folder / "out", true);
  REQUIRE_OK(file);
  REQUIRE_OK((*file)->write(HostOffset(0), bytes_of("new")));
  CHECK(text_of(folder / "out") == "old");
  REQUIRE_OK((*file)->commit());
  CHECK(text_of(folder / "out") == "new");
  CHECK(mode_of(folder / "out") == 0604);
  CHECK(inode_of(folder / "out") != inode);
  CHECK(list_directory(folder.path()) == Names{"out"});
}

TEST_CASE("a symbolic link's target is replaced", "[copy]") {
  const TempDirectory folder;
  REQUIRE(::mkdir((folder / "there").c_str(), 0700) == 0);
  support::write_file(folder / "there/file", "old");
  REQUIRE(::symlink("there/file", (folder / "link").c_str()) == 0);
  auto file = OutputFile::create(folder / "link", true);
  REQUIRE_OK(file);
  REQUIRE_OK((*file)->write(HostOffset(0), bytes_of("new")));
  REQUIRE_OK((*file)->commit());
  CHECK(text_of(folder / "there/file") == "new");
  struct stat status {};
  REQUIRE(::lstat((folder / "link").c_str(), &status) == 0);
  CHECK(S_ISLNK(status.st_mode));
  CHECK(list_directory(folder / "there") == Names{"file"});
}

TEST_CASE("a missing folder is an error", "[copy]") {
  const TempDirectory folder;
  REQUIRE_FAILS_WITH(OutputFile::create(folder / "no/out", false), "No such file or directory");
  support::write_file(folder / "file", "");
  REQUIRE_FAILS_WITH(OutputFile::create(folder / "file/out", false), "Not a directory");
}

TEST_CASE("writes in pieces of any size and alignment are read back", "[copy]") {
  const TempDirectory folder;
  const uint64_t seed = support::base_seed();
  INFO("VIRT_COMPACT_SEED=" << seed);
  support::Random random(seed);
  constexpr size_t kSize = 4 << 20;
  constexpr size_t kPage = AlignedBuffer::kAlignment;
  AlignedBuffer buffer(kSize);
  random.fill(buffer.span());

  auto file = OutputFile::create(folder / "out", false);
  REQUIRE_OK(file);
  for (size_t at = 0; at < kSize;) {
    // Whole pages from aligned memory, or a few bytes that make all later writes unaligned.
    size_t length = random.chance(70) ? kPage * random.between(1, 40) : random.between(1, 9000);
    if (at % kPage != 0 && random.chance(50)) length = kPage - at % kPage;
    length = std::min(length, kSize - at);
    const size_t cut = random.below(length);
    std::array<iovec, 2> pieces{
        {{buffer.data() + at, cut}, {buffer.data() + at + cut, length - cut}}};
    if (random.chance(50)) {
      REQUIRE_OK((*file)->write_vector(HostOffset(at), pieces));
    } else {
      REQUIRE_OK((*file)->write(HostOffset(at), {buffer.data() + at, length}));
    }
    at += length;
  }
  const auto size = (*file)->size();
  REQUIRE_OK(size);
  CHECK(*size == kSize);
  REQUIRE_OK((*file)->commit());
  const auto bytes = support::read_file(folder / "out");
  REQUIRE(bytes.size() == kSize);
  CHECK(std::equal(bytes.begin(), bytes.end(), buffer.data()));
}

TEST_CASE("more pieces than the system accepts at once are written", "[copy]") {
  const TempDirectory folder;
  const std::string text(5000, 'x');
  std::vector<iovec> pieces;
  for (size_t i = 0; i < text.size(); ++i) pieces.push_back({const_cast<char*>(&text[i]), 1});
  auto file = OutputFile::create(folder / "out", false);
  REQUIRE_OK(file);
  REQUIRE_OK((*file)->write_vector(HostOffset(3), pieces));
  REQUIRE_OK((*file)->commit());
  CHECK(text_of(folder / "out") == std::string(3, '\0') + text);
}

TEST_CASE("only the file that a dead run has left is removed", "[copy]") {
  const TempDirectory folder;
  const std::string dead = folder / ".out.virt-compact-4194303-7";
  const std::string alive = folder / ".out.virt-compact-1-0";
  const std::string foreign = folder / ".out.virt-compact-2-0";
  for (const std::string& path : {dead, alive, foreign}) support::write_file(path, "half");
  // Leaves alone files that belong to another name, or that this program has not made.
  support::write_file(folder / ".outer.virt-compact-1-0", "");
  support::write_file(folder / ".out.virt-compact-1", "");
  REQUIRE(::symlink("nowhere", (folder / ".out.virt-compact-3-0").c_str()) == 0);
  const Descriptor living(::open(alive.c_str(), O_RDWR | O_CLOEXEC));
  REQUIRE(mark_alive(living.get()));
  const bool root = ::geteuid() == 0;
  if (root) REQUIRE(::chown(foreign.c_str(), 12345, 12345) == 0);

  REQUIRE_OK(OutputFile::create(folder / "out", false));
  Names left{".out.virt-compact-1", ".out.virt-compact-1-0", ".out.virt-compact-3-0",
             ".outer.virt-compact-1-0"};
  if (root) left.insert(left.begin() + 2, ".out.virt-compact-2-0");
  CHECK(list_directory(folder.path()) == left);
}

TEST_CASE("a file that is still being made under a hidden name is not removed", "[copy]") {
  const TempDirectory folder;
  const auto opened = Directory::open(folder.path());
  REQUIRE_OK(opened);
  auto hidden = create_hidden(*opened, "out");
  REQUIRE_OK(hidden);
  remove_dead_files(*opened, "out");
  CHECK(list_directory(folder.path()) == Names{hidden->name});
  hidden->file.reset();
  remove_dead_files(*opened, "out");
  CHECK(list_directory(folder.path()).empty());
}

TEST_CASE("only the file that was there at the start is replaced", "[copy]") {
  const TempDirectory folder;
  support::write_file(folder / "out", "old");
  support::write_file(folder / "other", "somebody else's");
  auto file = OutputFile::create(folder / "out", true);
  REQUIRE_OK(file);
  REQUIRE(::rename((folder / "other").c_str(), (folder / "out").c_str()) == 0);
  REQUIRE_FAILS_WITH((*file)->commit(), "another process has created a file here");
  file->reset();
  CHECK(text_of(folder / "out") == "somebody else's");
  CHECK(list_directory(folder.path()) == Names{"out"});
}

TEST_CASE("a hidden name that belongs to another file is not removed", "[copy]") {
  const TempDirectory folder;
  support::write_file(folder / "out", "old");
  support::write_file(folder / "other", "somebody else's");
  auto file = OutputFile::create(folder / "out", true);
  REQUIRE_OK(file);
  REQUIRE(::rename((folder / "other").c_str(), (folder / "out").c_str()) == 0);
  REQUIRE_FAILS_WITH((*file)->commit(), "another process has created a file here");
  // The file now has a hidden name, which is removed with the object unless another file has it.
  const auto names = list_directory(folder.path());
  REQUIRE(names.size() == 2);
  const std::string& hidden = names[0];
  REQUIRE(hidden.front() == '.');
  REQUIRE(::unlink((folder / hidden).c_str()) == 0);
  support::write_file(folder / hidden, "somebody else's, too");
  file->reset();
  CHECK(text_of(folder / hidden) == "somebody else's, too");
}

TEST_CASE("taking back a file removes no other file", "[copy]") {
  const TempDirectory folder;
  const bool other = GENERATE(false, true);
  auto file = OutputFile::create(folder / "out", false);
  REQUIRE_OK(file);
  REQUIRE_OK((*file)->commit());
  if (other) {
    REQUIRE(::unlink((folder / "out").c_str()) == 0);
    support::write_file(folder / "out", "somebody else's");
  }
  (*file)->take_back();
  CHECK(list_directory(folder.path()) == (other ? Names{"out"} : Names{}));
}

TEST_CASE("a folder that is moved meanwhile still gets the file", "[copy]") {
  const TempDirectory folder;
  REQUIRE(::mkdir((folder / "a").c_str(), 0700) == 0);
  auto file = OutputFile::create(folder / "a/out", false);
  REQUIRE_OK(file);
  REQUIRE(::rename((folder / "a").c_str(), (folder / "b").c_str()) == 0);
  REQUIRE(::mkdir((folder / "a").c_str(), 0700) == 0);
  REQUIRE_OK((*file)->commit());
  CHECK(list_directory(folder / "a").empty());
  CHECK(list_directory(folder / "b") == Names{"out"});
}

TEST_CASE("a link of another user in a folder that all users may write is not followed", "[copy]") {
  if (::geteuid() != 0) {
    WARN("skipped: links of two users need root");
    return;
  }
  const TempDirectory folder;
  REQUIRE(::mkdir((folder / "tmp").c_str(), 0700) == 0);
  REQUIRE(::chmod((folder / "tmp").c_str(), 01777) == 0);
  support::write_file(folder / "victim", "precious");
  const std::string link = folder / "tmp/out";
  REQUIRE(::symlink("../victim", link.c_str()) == 0);
  REQUIRE(::lchown(link.c_str(), 12345, 12345) == 0);
  REQUIRE_FAILS_WITH(OutputFile::create(link, false), "exists already");
  REQUIRE_FAILS_WITH(OutputFile::create(link, true), "is not followed");
  REQUIRE(::lchown(link.c_str(), 0, 0) == 0);
  REQUIRE_OK(OutputFile::create(link, true));
  CHECK(text_of(folder / "victim") == "precious");
}

TEST_CASE("a scratch file has no name", "[copy]") {
  const TempDirectory folder;
  support::write_file(folder / "victim", "precious");
  REQUIRE(::symlink("victim", (folder / "scratch").c_str()) == 0);
  auto file = OutputFile::create_scratch(folder.path(), "scratch");
  REQUIRE_OK(file);
  REQUIRE_OK((*file)->write(HostOffset(0), bytes_of("spool")));
  file->reset();
  CHECK(list_directory(folder.path()) == Names{"scratch", "victim"});
  CHECK(text_of(folder / "victim") == "precious");
}
