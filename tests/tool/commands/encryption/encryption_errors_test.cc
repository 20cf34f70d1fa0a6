// What is refused of encrypted disks, and what is said then.
#include <signal.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/byte_order.h"
#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/nbd_server.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"
#include "tests/tool/commands/encryption/luks_disk.h"

using namespace vc;
using namespace vc::tool_test;

using Catch::Contains;
using support::TempDirectory;

namespace {

using Words = std::vector<std::string>;

void refused(const Words& words, const std::string& why) {
  const auto done = run_tool(words);
  INFO(done.describe());
  CHECK(done.exit_code == 1);
  CHECK_THAT(done.err, Contains(why));
  struct stat status {};
  CHECK(::stat(words.back().c_str(), &status) != 0);
}

void patch32(const std::string& path, uint64_t at, uint32_t value) {
  const std::vector<std::byte> bytes{
      static_cast<std::byte>(value >> 24), static_cast<std::byte>(value >> 16),
      static_cast<std::byte>(value >> 8), static_cast<std::byte>(value)};
  support::patch_file(path, at, bytes);
}

uint32_t be32_at(const std::vector<std::byte>& bytes, uint64_t at) {
  return load_be32(bytes.data() + at);
}

uint64_t be64_at(const std::vector<std::byte>& bytes, uint64_t at) {
  return load_be64(bytes.data() + at);
}

}  // namespace

TEST_CASE("encryption that is missing, wrong or unwanted is an error that says what to do",
          "[encryption]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk", out = folder / "out";
  create_luks(disk, "1M");
  const std::string key = key_in_file(folder / "key");
  const std::string wrong = key_in_file(folder / "wrong", "wrong");
  refused({"copy", "-q", disk, out}, "give its passphrase (--key disk:file:FILE)");
  refused({"copy", "-q", wrong, disk, out}, "the passphrase opens none of its key slots");
  refused({"copy", "-q", key, "-c", disk, out}, "cannot be compressed, as in QEMU");
  refused({"copy", "-q", key, "-O", "raw", disk, out}, "--decrypt");
  refused({"copy", "-q", "--key=disk:file:" + (folder / "none"), disk, out}, "none");
  refused({"copy", "-q", "--key=disk:other", disk, out}, "disk:file:PATH");
  refused(
      {"copy", "-q", key, "--decrypt", "-o", "encrypt.format=luks,encrypt.key-secret=s", disk, out},
      "contradict");
  refused({"copy", "-q", key, "-o", "encrypt.format=luks,encrypt.key-secret=s", disk, out},
          "there is no secret 's'");
  refused({"copy", "-q", key, "-o", "encrypt.format=aes,encrypt.key-secret=s", disk, out}, "luks");
  refused({"copy", "-q", key, "-o", "encrypt.key-secret=s", disk, out}, "encrypt.format=luks");
  refused({"copy", "-q", "--object", "secret,id=s,data=x", "-o",
           "encrypt.format=luks,encrypt.key-secret=s,encrypt.cipher-alg=des-64", disk, out},
          "des");
  refused({"copy", "-q", "--object", "secret,id=s,data=%%,format=base64", disk, out}, "base64");
  refused({"copy", "-q", "--object", "secret,id=s", disk, out}, "file= or data=");
  // Metadata is not encrypted.
  for (const char* command : {"info", "map", "check"}) {
    const auto done = run_tool({command, disk});
    INFO(done.describe());
    CHECK(done.ok());
  }
}

TEST_CASE("damaged and hostile LUKS headers in an image are errors that name the file",
          "[encryption]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk", out = folder / "out";
  create_luks(disk, "1M");
  const std::string key = key_in_file(folder / "key");
  const auto good = support::read_file(disk);
  const uint64_t at = luks_offset(disk);
  const auto damaged = [&](uint64_t offset, uint32_t value, const std::string& why) {
    support::write_file(disk, good);
    patch32(disk, at + offset, value);
    refused({"copy", "-q", key, disk, out}, disk);
    refused({"copy", "-q", key, disk, out}, why);
  };
  damaged(0, 0, "magic");
  damaged(212, 0xffffffff, "4294967295 iterations of PBKDF2: 67108864 at most");
  damaged(164, 0x40000000, "digest of the master key needs 1073741824 iterations");
  damaged(252, 0xffffffff, "outside of the header");
  damaged(248, 0x00ffffff, "outside of the header");
  damaged(108, 40, "cipher 'aes'");
  damaged(112, 0x12345678, "opens none of its key slots");
}

TEST_CASE("a header that keeps the command busy does not keep it from a signal", "[encryption]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk", out = folder / "out";
  create_luks(disk, "1M");
  const std::string key = key_in_file(folder / "key");
  constexpr uint64_t kIterationsOfSlot = 212;
  patch32(disk, luks_offset(disk) + kIterationsOfSlot, 1 << 26);
  // The work takes a minute. Then the passphrase would be wrong, with exit code 1.
  const auto stopped = support::run({"timeout", "--preserve-status", "-s", "TERM", "1",
                                     virt_compact(), "copy", "-q", key, disk, out});
  INFO(stopped.describe());
  CHECK(stopped.exit_code == 128 + SIGTERM);
  CHECK_FALSE(std::filesystem::exists(out));
}

TEST_CASE("the LUKS header counts as metadata: it may not leak, overlap, or be lost",
          "[encryption]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk";
  create_luks(disk, "1M");
  qemu_io(disk, {"write -q -P 7 0 1M"});
  const auto good = support::read_file(disk);
  const auto header = luks_header(disk);
  const auto expected = qemu_reads(disk);
  const auto check = [&](const Words& more) {
    Words words{"check", "-q"};
    words.insert(words.end(), more.begin(), more.end());
    if (!more.empty()) words.emplace_back("--undo=none");
    words.push_back(disk);
    return run_tool(words);
  };
  CHECK(check({}).ok());
  const auto intact = [&] {
    const auto now = support::read_file(disk);
    const auto at = static_cast<ptrdiff_t>(luks_offset(disk));
    return std::equal(header.begin(), header.end(), now.begin() + at);
  };

  SECTION("a rebuild of the refcounts counts it") {
    // The refcounts of all clusters are lost.
    const uint64_t table = be64_at(good, 48);
    patch32(disk, table + 4, 0);
    CHECK(check({}).exit_code != 0);
    CHECK(check({"-r", "all"}).ok());
    CHECK(intact());
    CHECK((qemu_reads(disk) == expected));
    CHECK(qemu_check(disk).ok());
  }
  SECTION("it is not freed if nothing names it") {
    const uint64_t extension = luks_extension(disk);
    for (const uint64_t offset : {0, 4, 8, 12, 16, 20}) {
      CAPTURE(offset);
      support::write_file(disk, good);
      const auto before = be32_at(good, extension + offset);
      patch32(disk, extension + offset, offset == 12 ? before + 1 : 0x01234567);
      const auto found = run_tool({"check", "--output=json", disk});
      INFO(found.describe());
      CHECK(found.exit_code != 0);
      for (const char* const repair : {"leaks", "all"}) {
        const auto repaired = check({"-r", repair});
        INFO(repaired.describe());
      }
      patch32(disk, extension + offset, before);
      CHECK(intact());
      CHECK((qemu_reads(disk) == expected));
      CHECK(qemu_check(disk).ok());
    }
  }
  SECTION("damage of it is found, and told where it matters") {
    patch32(disk, luks_offset(disk), 0);
    const auto found = run_tool({"check", disk});
    INFO(found.describe());
    CHECK(found.exit_code == 2);
    CHECK_THAT(found.err, Contains("no passphrase opens the image"));
    const auto copied =
        run_tool({"copy", "-q", key_in_file(folder / "key"), disk, folder / "copy"});
    CHECK_THAT(copied.err, Contains("from a backup") && !Contains("--salvage"));
  }
  SECTION("a guest that is mapped to it cannot overwrite it") {
    const uint64_t l1 = be64_at(good, 40);
    const uint64_t l2 = be64_at(good, l1) & 0x00fffffffffffe00;
    const uint64_t to = luks_offset(disk) + 65536;
    patch32(disk, l2, 0x80000000 | static_cast<uint32_t>(to >> 32));
    patch32(disk, l2 + 4, static_cast<uint32_t>(to));
    CHECK(check({}).exit_code == 2);
    Words words = support::nbdkit_command();
    words.insert(words.end(), {"-U", "-", plugin(), "file=" + disk, "passphrase=geheim", "--run",
                               "qemu-io -f raw -c 'write 0 64k' \"$uri\""});
    CHECK_FALSE(support::run(words).ok());
    CHECK(intact());
  }
}

TEST_CASE("an image is changed without its passphrase, if only metadata changes", "[encryption]") {
  const TempDirectory folder;
  const std::string base = folder / "base", top = folder / "top";
  create_luks(base, "1M");
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", top, "1M"});
  const auto rebased = run_tool({"rebase", "-u", "-b", base, "-F", "qcow2", top});
  INFO(rebased.describe());
  CHECK(rebased.ok());
  const auto snapshot = run_tool({"snapshot", "-c", "one", top});
  INFO(snapshot.describe());
  CHECK(snapshot.ok());
}

TEST_CASE("no message shows a part of a passphrase", "[encryption]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk";
  create_luks(disk, "1M");
  for (const char* const object :
       {"secret,id=s,data=one,geheim", "secret,id=s,data=one,geheim=two",
        "secret,id=s,format=base64,data=geheim!", "secret,id=s,format=hex,data=geheim"}) {
    CAPTURE(object);
    const auto done = run_tool({"info", "--object", object, disk});
    CHECK(done.exit_code == 1);
    CHECK_THAT(done.err, Contains("--object") && !Contains("geheim"));
  }
  const std::string wrong = key_in_file(folder / "key", "niemals");
  for (const auto& done : {run_tool({"copy", wrong, disk, folder / "out"}),
                           run_tool({"copy", "--key=disk:key:niemals", disk, folder / "out"})})
    CHECK_THAT(done.err + done.out, Contains("wrong") && !Contains("niemals"));
}

TEST_CASE("the encrypted bytes of a LUKS disk can be copied as they are", "[encryption]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk", out = folder / "out";
  for (const char version : {'\1', '\2'}) {
    std::string bytes("LUKS\xba\xbe\0", 7);
    bytes.push_back(version);
    bytes.resize(1 << 20, 'x');
    support::write_file(disk, bytes);
    CHECK_THAT(run_tool({"copy", "-q", disk, folder / "none"}).err,
               Contains(version == '\1' ? "(-f raw)" : "with the format raw"));
    const auto done = run_tool({"copy", "-q", "--force", "-f", "raw", disk, out});
    INFO(done.describe());
    CHECK(done.ok());
    support::run_ok({"qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", disk, out});
  }
}

TEST_CASE("info tells of the encryption what qemu-img info tells", "[encryption]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk";
  create_luks(disk, "1M", ",encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv");
  const auto ours = run_tool({"info", "--output=json", disk});
  const auto theirs =
      support::run_ok({"qemu-img", "info", "--output=json", "--object", "secret,id=s,data=geheim",
                       "--image-opts", "driver=qcow2,encrypt.key-secret=s,file.filename=" + disk});
  const auto encryption = [](const support::Outcome& outcome) {
    return nlohmann::json::parse(outcome.out).at("format-specific").at("data").at("encrypt");
  };
  auto told = encryption(ours);
  CHECK(told.at("detached-header") == false);
  if (!encryption(theirs).contains("detached-header")) told.erase("detached-header");  // QEMU 7.2
  CHECK(told == encryption(theirs));
  CHECK_THAT(run_tool({"info", disk}).out, Contains("cipher alg: aes-256"));
  // A hostile UUID.
  support::patch_file(disk, luks_offset(disk) + 168, std::vector<std::byte>(40, std::byte{0xe4}));
  const auto hostile = run_tool({"info", "--output=json", disk});
  INFO(hostile.describe());
  REQUIRE(hostile.ok());
  CHECK(encryption(hostile).at("uuid").get<std::string>().find("xe4") != std::string::npos);
}
