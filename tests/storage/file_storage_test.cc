#include "storage/file_storage.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/aligned_buffer.h"
#include "qcow2/read/raw_layer.h"
#include "tests/catch_text.h"
#include "tests/support/scratch_folder.h"

using namespace vc;

using namespace qcow2;

TEST_CASE("a file is read up to its end", "[file]") {
  const test::ScratchFolder folder;
  const std::string path = folder / "file";
  std::ofstream(path) << "hello";
  const auto file = FileStorage::open_readonly(path);
  REQUIRE_OK(file);
  CHECK((*file)->name() == path);
  CHECK((*file)->size() == 5u);
  std::vector<std::byte> bytes(10);
  CHECK((*file)->read(HostOffset(0), bytes) == 5u);
  CHECK(bytes[4] == std::byte{'o'});
  CHECK((*file)->read(HostOffset(3), bytes) == 2u);
  CHECK((*file)->read(HostOffset(5), bytes) == 0u);
  CHECK((*file)->read(HostOffset(1ULL << 62), bytes) == 0u);
  CHECK((*file)->read(HostOffset(UINT64_MAX - 3), bytes) == 0u);
  REQUIRE_FAILS_WITH(read_fully(**file, HostOffset(1), bytes), "the file ends at 0x5");
  // Opened for reading: writing is an error, not a change.
  REQUIRE_FAILS_WITH((*file)->write(HostOffset(0), bytes), path);
  CHECK((*file)->size() == 5u);
}

TEST_CASE("what is in the page cache is read without waiting", "[file]") {
  const test::ScratchFolder folder;
  const std::string path = folder / "file";
  std::ofstream(path) << std::string(8192, 'x') << "hello";
  const auto file = FileStorage::open_readonly(path);
  REQUIRE_OK(file);
  std::vector<std::byte> bytes(5);
  const iovec piece{bytes.data(), bytes.size()};
  if (::preadv2((*file)->descriptor(), &piece, 1, 0, RWF_NOWAIT) < 0 && errno == EOPNOTSUPP) return;
  (*file)->prefetch(HostOffset(8192), bytes.size());
  for (int i = 0; i < 1000 && (*file)->read_cached(HostOffset(8192), bytes) == 0; ++i)
    ::usleep(10000);
  CHECK((*file)->read_cached(HostOffset(8192), bytes) == 5u);
  CHECK(bytes[4] == std::byte{'o'});
  CHECK((*file)->read_cached(HostOffset(8195), bytes) == 2u);
  // Errors and the end of the file are left to read().
  CHECK((*file)->read_cached(HostOffset(8197), bytes) == 0u);
  CHECK((*file)->read_cached(HostOffset(UINT64_MAX - 3), bytes) == 0u);
  (*file)->prefetch(HostOffset(UINT64_MAX - 3), bytes.size());
}

TEST_CASE("files that are not disk images are refused without waiting", "[file]") {
  const test::ScratchFolder folder;
  SECTION("a missing file") {
    REQUIRE_FAILS_WITH(FileStorage::open_readonly(folder / "none"), "No such file or directory");
  }
  SECTION("a directory") {
    REQUIRE_FAILS_WITH(FileStorage::open_readonly(folder.path()), "is a directory");
  }
  SECTION("a FIFO, which would block until another process writes") {
    REQUIRE(mkfifo((folder / "fifo").c_str(), 0600) == 0);
    REQUIRE_FAILS_WITH(FileStorage::open_readonly(folder / "fifo"), "is a FIFO");
  }
  SECTION("a character device") {
    REQUIRE_FAILS_WITH(FileStorage::open_readonly("/dev/zero"), "is a character device");
  }
  SECTION("a socket") {
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string path = folder / "s";
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    REQUIRE_FAILS_WITH(FileStorage::open_readonly(path), "is a socket");
    close(fd);
  }
}

TEST_CASE("one file under two names has one identity", "[file]") {
  const test::ScratchFolder folder;
  std::ofstream(folder / "a") << "x";
  std::ofstream(folder / "b") << "x";
  REQUIRE(link((folder / "a").c_str(), (folder / "hard").c_str()) == 0);
  REQUIRE(symlink("a", (folder / "soft").c_str()) == 0);
  const auto identity = [&](const char* name) {
    const auto file = FileStorage::open_readonly(folder / name);
    REQUIRE_OK(file);
    return (*file)->identity();
  };
  CHECK(identity("a") == identity("hard"));
  CHECK(identity("a") == identity("soft"));
  CHECK_FALSE(identity("a") == identity("b"));
}

TEST_CASE("holes of a file are found", "[file]") {
  const test::ScratchFolder folder;
  const std::string path = folder / "sparse";
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  REQUIRE(fd >= 0);
  REQUIRE(ftruncate(fd, 3 << 20) == 0);
  const std::vector<char> data(1 << 20, 'x');
  REQUIRE(pwrite(fd, data.data(), data.size(), 1 << 20) == 1 << 20);
  close(fd);

  const auto file = FileStorage::open_readonly(path);
  REQUIRE_OK(file);
  const auto hole = (*file)->run_at(HostOffset(0), 3 << 20);
  REQUIRE_OK(hole);
  CHECK_FALSE(hole->data);
  CHECK(hole->length == 1 << 20);
  const auto run = (*file)->run_at(HostOffset(1 << 20), 3 << 20);
  CHECK(run->data);
  CHECK(run->length == 1 << 20);
  CHECK((*file)->run_at(HostOffset(1 << 20), 100)->length == 100);
  const auto tail = (*file)->run_at(HostOffset(2 << 20), 1 << 20);
  CHECK_FALSE(tail->data);
  CHECK(tail->length == 1 << 20);
  CHECK(*(*file)->blocks() >= 1u << 20);
  CHECK(*(*file)->blocks() < 3u << 20);

  const auto layer = RawLayer::open(*file);
  REQUIRE_OK(layer);
  const auto extent = (*layer)->map(GuestOffset(0), 3 << 20);
  REQUIRE_OK(extent);
  CHECK(extent->kind == ExtentKind::kZero);
}

TEST_CASE("a file that is truncated during a read is an error", "[file]") {
  const test::ScratchFolder folder;
  const std::string path = folder / "raw";
  std::ofstream(path) << std::string(8192, 'x');
  const auto file = FileStorage::open_readonly(path);
  const auto layer = RawLayer::open(*file);
  const auto extent = (*layer)->map(GuestOffset(0), 8192);
  REQUIRE_OK(extent);
  std::filesystem::resize_file(path, 100);
  std::vector<std::byte> bytes(8192);
  REQUIRE_FAILS_WITH((*layer)->read(*extent, GuestOffset(0), bytes), "became shorter");
}

TEST_CASE("reads and writes without the page cache have the same bytes", "[file]") {
  const test::ScratchFolder folder;
  const std::string path = folder / "file";
  std::string content;
  for (unsigned i = 0; content.size() < (2 << 20) + 777; ++i) content += std::to_string(i) + ' ';
  std::ofstream(path) << content;
  const auto file = FileStorage::open_writable(path);
  REQUIRE_OK(file);
  const auto bypassed = (*file)->bypass_cache();
  if (!bypassed) {
    CHECK_THAT(bypassed.error().message(), Catch::Contains("O_DIRECT"));
    return;
  }
  AlignedBuffer aligned(8192);
  REQUIRE(*(*file)->read(HostOffset(4096), aligned.span()) == 8192);
  CHECK(std::memcmp(aligned.data(), content.data() + 4096, 8192) == 0);
  for (const size_t at : {size_t{0}, size_t{1}, size_t{4095}, size_t{123456}, content.size() - 5000,
                          content.size() - 1, content.size(), content.size() + 5000})
    for (const size_t length : {size_t{1}, size_t{512}, size_t{4097}, size_t{1500000}}) {
      std::vector<std::byte> bytes(length);
      const auto got = (*file)->read(HostOffset(at), bytes);
      REQUIRE_OK(got);
      const size_t there = at < content.size() ? std::min(length, content.size() - at) : 0;
      CAPTURE(at, length);
      CHECK(*got == there);
      CHECK(std::memcmp(bytes.data(), content.data() + std::min(at, content.size()), there) == 0);
    }
  std::fill_n(aligned.data(), 8192, std::byte{'x'});
  REQUIRE_OK((*file)->write(HostOffset(8192), aligned.span()));
  REQUIRE_OK((*file)->write(HostOffset(20001), aligned.span().first(100)));
  content.replace(8192, 8192, std::string(8192, 'x'));
  content.replace(20001, 100, std::string(100, 'x'));
  std::vector<std::byte> all(content.size());
  REQUIRE(*(*file)->read(HostOffset(0), all) == all.size());
  CHECK(std::memcmp(all.data(), content.data(), all.size()) == 0);
}
