// The journal of a live run: what survives, and what is refused.
#include "live/journal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/catch_text.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using live::Journal;
using live::parse_journal;
using live::Record;

namespace fs = std::filesystem;

namespace {

constexpr const char* kName = ".disk.journal";

Record record() {
  Record it;
  it.uuid = "12345678-1234-1234-1234-123456789abc";
  it.target = "vda";
  it.backup = "disk.bak";
  it.inode = 77;
  it.user = 107;
  it.group = 108;
  it.step = "begin";
  return it;
}

const std::string kLine =
    R"({"backup":"disk.bak","domain":"12345678-1234-1234-1234-123456789abc",)"
    R"("format":"virt-compact live 1","group":1,"inode":77,"keep-backup":true,"paused":false,)"
    R"("step":"copy","target":"vda","user":0})"
    "\n";

std::string replaced(const std::string& from, const std::string& to) {
  std::string text = kLine;
  text.replace(text.find(from), from.size(), to);
  return text;
}

void append(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::app) << text;
}

}  // namespace

TEST_CASE("a journal keeps its last record", "[live]") {
  const support::TempDirectory folder;
  const auto directory = Directory::open(folder.path());
  REQUIRE(directory);
  {
    auto journal = Journal::create(*directory, kName, record());
    REQUIRE(journal);
    CHECK_FALSE(Journal::create(*directory, kName, record()));
    CHECK(journal->begin("copy"));
    CHECK(journal->set_paused(true));
    // Locked.
    const auto second = Journal::open(*directory, kName);
    REQUIRE_FALSE(second);
    CHECK_THAT(second.error().message(), Catch::Contains("another virt-compact"));
  }
  // The loss of power within an append.
  append(folder / kName, R"({"backup":"disk.bak","dom)");
  auto journal = Journal::open(*directory, kName);
  REQUIRE(journal);
  REQUIRE(*journal);
  const auto& last = (*journal)->record();
  REQUIRE(last);
  CHECK(last->uuid == record().uuid);
  CHECK(last->target == "vda");
  CHECK(last->backup == "disk.bak");
  CHECK(last->inode == 77);
  CHECK(last->user == 107);
  CHECK(last->group == 108);
  CHECK(last->keep_backup);
  CHECK(last->step == "copy");
  CHECK(last->paused);
  // The next record does not continue the incomplete line.
  CHECK((*journal)->begin("swap"));
  journal->reset();
  auto again = Journal::open(*directory, kName);
  REQUIRE(again);
  REQUIRE(*again);
  CHECK((*again)->record()->step == "swap");
  CHECK((*again)->remove(*directory));
  CHECK_FALSE(fs::exists(folder / kName));
  const auto none = Journal::open(*directory, kName);
  REQUIRE(none);
  CHECK_FALSE(*none);
}

TEST_CASE("a journal without a complete record has no record", "[live]") {
  for (const std::string& text :
       {std::string(), kLine.substr(0, kLine.size() - 1), std::string(300, '\0'),
        std::string("{\n"), std::string(300, '\0') + "\n"}) {
    CAPTURE(text);
    const auto parsed = parse_journal(text, "journal");
    REQUIRE(parsed);
    CHECK_FALSE(*parsed);
  }
  const auto parsed = parse_journal(kLine + std::string(300, '\0'), "journal");
  REQUIRE(parsed);
  CHECK(*parsed);
}

TEST_CASE("a journal of a QEMU without libvirt names no domain", "[live]") {
  const std::string qmp = replaced("\"paused\":false", "\"paused\":false,\"qmp\":true");
  std::string text = qmp;
  text.replace(text.find("vda"), 3, "");
  text.replace(text.find(record().uuid), record().uuid.size(), "");
  const auto parsed = parse_journal(text, "journal");
  REQUIRE(parsed);
  REQUIRE(*parsed);
  CHECK((*parsed)->qmp);
  // The kind of a run does not change.
  CHECK(parse_journal(qmp + qmp, "journal"));
  CHECK_FALSE(parse_journal(qmp + kLine, "journal"));
}

TEST_CASE("a journal with wrong values is refused", "[live]") {
  REQUIRE(parse_journal(kLine, "journal"));
  for (const std::string& text : {
           replaced("live 1", "live 2"),
           replaced("12345678-1234", "../../../../x"),
           replaced("\"vda\"", "\"vda'/><x\""),
           replaced("\"vda\"", "7"),
           replaced("\"disk.bak\"", "\"../disk.bak\""),
           replaced("\"disk.bak\"", "\"\""),
           replaced("\"disk.bak\"", "\"..\""),
           replaced("\"disk.bak\"", "\"a\\u0000b\""),
           replaced("\"disk.bak\"", "\"" + std::string(256, 'x') + "\""),
           replaced("77", "-1"),
           replaced("77", "1e400") + kLine,
           replaced("\"user\":0", "\"user\":4294967296"),
           replaced("\"user\":0", "\"u\":0"),
           std::string("[]\n") + kLine,
           std::string("x\n") + kLine,
           kLine + replaced("77", "78"),
           kLine + replaced("disk.bak", "other"),
       }) {
    CAPTURE(text);
    const auto parsed = parse_journal(text, "journal");
    REQUIRE_FALSE(parsed);
    CHECK_THAT(parsed.error().message(), Catch::StartsWith("journal: is not a journal"));
  }
  std::string deep;
  for (unsigned i = 0; i < 30000; ++i) deep += "[";
  CHECK_FALSE(parse_journal(deep + "\n" + kLine, "journal"));
}

TEST_CASE("a journal that another user can write is not trusted", "[live]") {
  const support::TempDirectory folder;
  const auto directory = Directory::open(folder.path());
  REQUIRE(directory);
  const std::string path = folder / kName;
  const auto refusal = [&] {
    const auto opened = Journal::open(*directory, kName);
    return opened ? std::string("accepted") : opened.error().message();
  };
  support::write_file(path, kLine);
  fs::permissions(path, fs::perms(0600));
  CHECK(refusal() == "accepted");
  fs::permissions(path, fs::perms(0620));
  CHECK_THAT(refusal(), Catch::Contains("not trusted"));
  fs::permissions(path, fs::perms(0600));
  fs::create_hard_link(path, folder / "other");
  CHECK_THAT(refusal(), Catch::Contains("not a regular file with one name"));
  fs::remove(path);
  fs::create_symlink(folder / "other", path);
  CHECK_THAT(refusal(), Catch::Contains(kName));
  fs::remove(path);
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  CHECK(refusal() != "accepted");
  fs::remove(path);
  support::write_file(path, std::string(Journal::kMostBytes + 1, ' '));
  fs::permissions(path, fs::perms(0600));
  CHECK_THAT(refusal(), Catch::Contains("too long"));
  if (::geteuid() != 0) return;
  support::write_file(path, kLine);
  REQUIRE(::chown(path.c_str(), 65534, 65534) == 0);
  CHECK_THAT(refusal(), Catch::Contains("belongs to user 65534"));
}
