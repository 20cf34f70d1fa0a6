// Runs commands of scripts for qemu-img with virt-compact instead. Expects the same exit codes, the
// same values in JSON, and the same lines of text.

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "tests/catch.h"
#include "tests/drop_in/same_script.h"
#include "tests/interop/image_maker.h"
#include "tests/qcow2/check/damages.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

namespace {

using drop_in::Difference;
using drop_in::differences;
using drop_in::Words;
using support::TempDirectory;

Words operator+(Words a, const Words& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// Read-only commands on an image, whose name is appended.
const std::vector<Words> kQuestions = {
    {"check", "--output=json"},
    {"check"},
    {"check", "-q", "-U", "-f", "qcow2", "-T", "none"},
    {"info", "--output=json"},
    {"info", "-U"},
    {"info", "--backing-chain", "--output", "json"},
    {"map", "--output=json"},
    {"map", "-f", "qcow2"},
    {"map", "--start-offset=64k", "--max-length", "1M", "--output=json"},
    {"measure", "-O", "qcow2", "--output=json"},
    {"measure", "--output=json", "-f", "qcow2"},
    {"measure", "-O", "raw"},
    {"measure", "-O", "qcow2", "-o", "cluster_size=2M"},
    {"snapshot", "-l"},
};

// An intended difference, with its reason.
struct Exception {
  std::set<std::string> commands;  // their first words
  const char* why;
  std::set<std::string> where;  // names of damages
};

const std::vector<Exception> kExceptions = {
    {{"check"},
     "tests/qcow2/check/damages.cc says why",
     {"an unaligned refcount table", "a refcount table of 2^32 - 1 clusters",
      "COPIED and nothing else in an L1 entry", "COPIED and nothing else in a snapshot's L1 entry",
      "a refcount block past the end of any file", "an unaligned L2 table",
      "data on the L1 table, counted twice", "a zero cluster in version 2", "AES",
      "2000 bytes of extra data", "a bitmap's table entry with reserved bits",
      "unaligned data of a bitmap"}},
    {{"check", "info", "map", "measure", "snapshot"},
     "qemu-img cannot open it, for the sake of bitmaps; all else can be told",
     {"a bitmap's table entry with reserved bits", "unaligned data of a bitmap",
      "a bitmap with an unknown flag", "a bitmap's name that is too long",
      "the directory of bitmaps past the end", "65536 bitmaps", "a bitmap of more than 512 MiB",
      "a bitmap that does not cover the disk"}},
    {{"map", "measure"},
     "tables that are not in the file, or none, are zeros to qemu-img: so a disk is empty that has "
     "only been cut off",
     {"an L2 table past the end", "an L2 table right past the end", "the L1 table past the end",
      "the L1 table on the header", "cut off in the first cluster"}},
    {{"map", "info", "measure", "snapshot"},
     "a snapshot table that is not in the file is one of snapshots without names to qemu-img",
     {"the snapshot table past the end",
      "a snapshot table that ends a cluster and 80 bytes past the end"}},
    {{"check", "map", "measure"},
     "what a table or a cluster lacks past the end of the file is lost: qemu-img reads zeros there",
     {"a longer L1 table than fits", "half of an L2 table is cut off",
      "half of the last data cluster is cut off",
      "compressed data in the last cluster, past the end"}},
    {{"check", "info", "map", "measure", "snapshot"},
     "the offset of a snapshot table that has no rows matters to no disk; check says so",
     {"no snapshots, at an offset that is none"}},
    {{"check", "info", "map", "measure", "snapshot"},
     "without a data file it does not matter that it is raw; check says so",
     {"a raw data file that is not there"}},
    {{"map", "measure"},
     "snapshots are looked at when an image is opened",
     {"an unaligned L1 table of a snapshot", "a snapshot's L1 table of 2^32 - 1 entries"}},
    {{"info", "snapshot"},
     "a name of NULs is none to qemu-img; we show them",
     {"a snapshot without a disk size"}},
    {{"measure"},
     "a copy of this would fail: its data cannot be read, which qemu-img measure does not try",
     {"an unaligned L2 table", "the refcount block as an L2 table", "unaligned data",
      "an unaligned place of zeros", "data past the end", "data at 32 PB",
      "an L2 entry of 0xbfffffffffff0000", "the last data cluster is cut off",
      "half of the last data cluster is cut off", "a zero cluster in version 2",
      "compressed data past the end", "compressed data on the L1 table",
      "a compressed entry at the greatest offset", "a subcluster both allocated and zero",
      "an allocated subcluster nowhere", "an unaligned place of subclusters that read as zeros",
      "unaligned subclusters", "a compressed entry in a data file",
      "unaligned data in a data file"}},
    {{"map", "measure"},
     "we read through the data file, which qemu-img refuses only when it reads",
     {"data of a data file without COPIED",
      "data of a data file without COPIED, and no refcounts"}},
    {{"map"},
     "both give up there; the headline of qemu-img is out by then",
     {"an unaligned L2 table", "unaligned data", "an unaligned place of zeros",
      "a zero cluster in version 2", "a subcluster both allocated and zero",
      "an allocated subcluster nowhere", "an unaligned place of subclusters that read as zeros",
      "unaligned subclusters", "a compressed entry in a data file",
      "unaligned data in a data file"}},
    {{"map", "snapshot"}, "metadata is in the clear; qemu-img wants the key", {"AES"}},
};

// The exceptions that occurred, as "command: damage".
using Seen = std::set<std::string>;

bool is_explained(const Words& command, const std::string& damage, const Difference& difference,
                  Seen& seen) {
  // For text output, qemu-img fails at compressed clusters.
  const bool text = std::find(command.begin(), command.end(), "--output=json") == command.end();
  if (command.front() == "map" && text && difference.what == "exit code") return true;
  seen.insert(command.front() + ": " + damage);
  return std::any_of(kExceptions.begin(), kExceptions.end(), [&](const Exception& it) {
    return it.commands.count(command.front()) != 0 && it.where.count(damage) != 0;
  });
}

std::string unexplained(const Words& command, const std::string& damage, Seen& seen) {
  std::string text;
  // Allocated blocks that were never written are holes for ext4, until a read puts them into the
  // page cache: then they are data. So a difference counts only if it is found several times.
  for (int attempt = 0; attempt < 3; ++attempt) {
    text.clear();
    for (const Difference& it : drop_in::differences(command))
      if (!is_explained(command, damage, it, seen)) text += it.what + ": " + it.detail + "\n";
    if (text.empty()) break;
  }
  return text;
}

}  // namespace

TEST_CASE("scripts get the results of qemu-img for random images", "[random]") {
  const uint64_t seed = support::base_seed();
  Seen seen;
  for (uint64_t i = 0; i < support::iterations(5); ++i) {
    INFO("VIRT_COMPACT_SEED=" << seed + i);
    support::Random random(seed + i);
    const TempDirectory folder;
    const auto image = interop::make_image(random, folder.path());
    INFO(image.recipe);
    for (const Words& question : kQuestions) {
      const Words command = question + Words{image.path};
      INFO(support::shell_line(command));
      CHECK(unexplained(command, "", seen) == "");
    }
    const std::string raw = image.disks.front().raw;
    for (const Words& command :
         {Words{"compare", image.path, image.path},
          Words{"compare", "-f", "qcow2", "-F", "raw", "-T", "none", image.path, raw},
          Words{"compare", "-q", "-U", "-f", "raw", "-F", "qcow2", raw, image.path}}) {
      INFO(support::shell_line(command));
      CHECK(unexplained(command, "", seen) == "");
    }
    // Changes, each made to a separate copy.
    if (image.disks.size() < 2) continue;
    const std::string name = image.disks.back().snapshot;
    for (const std::string action : {"-d", "-a", "-c"}) {
      const std::string a = image.path + ".a";
      const std::string b = image.path + ".b";
      support::run_ok({"cp", image.path, a});
      support::run_ok({"cp", image.path, b});
      INFO("snapshot " << action << " " << name);
      const auto theirs = support::run({"qemu-img", "snapshot", action, name, a});
      const auto ours = tool_test::run_tool({"snapshot", action, name, b});
      INFO(theirs.describe() << ours.describe());
      CHECK(ours.exit_code == theirs.exit_code);
      CHECK(ours.out == theirs.out);
      if (!theirs.ok()) continue;
      support::run_ok({"qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", a, b});
      if (image.sound) CHECK(support::run({"qemu-img", "check", "-q", b}).ok());
    }
  }
}

TEST_CASE("scripts get the results of qemu-img for damaged images, except for listed differences",
          "[damaged]") {
  const TempDirectory folder;
  Seen seen;
  for (const checks::Damage& damage : checks::make_damages(folder.path())) {
    INFO(damage.name << ", " << damage.path);
    for (const Words& question : kQuestions) {
      const Words command = question + Words{damage.path};
      INFO(support::shell_line(command));
      CHECK(unexplained(command, damage.name, seen) == "");
    }
  }
  // An exception that did not occur is out of date.
  for (const Exception& it : kExceptions)
    for (const std::string& damage : it.where)
      CHECK(std::any_of(it.commands.begin(), it.commands.end(), [&](const std::string& command) {
        INFO(damage);
        return seen.count(command + ": " + damage) != 0;
      }));
}

TEST_CASE("options of qemu-img are accepted in all their spellings", "[options]") {
  const TempDirectory folder;
  const std::string base = folder / "base.qcow2";
  const std::string top = folder / "top,1.qcow2";
  const std::string raw = folder / "disk.raw";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", base, "8M"});
  support::run_ok({"qemu-io", "-c", "write -q -P 1 0 1M", base});
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top});
  support::run_ok({"qemu-io", "-c", "write -q -P 2 2M 1M", top});
  support::run_ok({"qemu-img", "snapshot", "-c", "first", top});
  support::write_file(raw, std::string(1000000, 'x'));
  // If a disk ends inside of a sector, qemu-img map reports the rest of the sector as zeros.
  const std::string even = folder / "even.raw";
  support::write_file(even, std::string(1 << 20, 'x'));
  const std::string options =
      fmt::format("driver=qcow2,file.driver=file,file.filename={}/top,,1.qcow2", folder.path());
  const std::string json =
      fmt::format(R"(json:{{"driver":"qcow2","file":{{"driver":"file","filename":"{}"}}}})", top);
  const std::string object = "secret,id=s,data=abc";
  const std::vector<Words> commands = {
      {"check", "--format", "qcow2", top},
      {"check", "--format=qcow2", "--output=human", top},
      {"check", "--force-share", "-T", "writeback", top},
      {"check", "-r", "leaks", top},
      {"check", "--repair=all", "-T", "unsafe", "-q", top},
      {"check", "--image-opts", options},
      {"check", "--object", object, top},
      {"check", "file:" + top},
      {"check", json},
      {"check", "-r", "some", top},
      {"check", "-T", "foo", top},
      {"check", "--output=xml", top},
      {"check", "-f", "raw", raw},
      {"check", raw},
      {"check"},
      {"check", top, base},
      {"check", folder / "nowhere"},
      {"info", "--format=qcow2", "--output=json", top},
      {"info", "--force-share", "--backing-chain", top},
      {"info", "--image-opts", "--output=json", options},
      {"info", "--image-opts", "-f", "qcow2", options},
      {"info", "--image-opts", "driver=qcow2,bogus=1,file.filename=" + base},
      {"info", "--image-opts", base},
      {"info", "--object=" + object, "file:" + top},
      {"info", "--output=json", json},
      {"info", "-f", "raw", top},
      {"info", raw},
      {"info", "--output=xml", top},
      {"info"},
      {"map", "-s", "1M", "-l", "2M", "--output=json", top},
      {"map", "--start-offset", "1048576", "--max-length=1M", top},
      {"map", "-s", "16M", top},
      {"map", "--image-opts", "--object", object, options},
      {"map", "file:" + top},
      {"map", "-U", "-f", "raw", "--output=json", even},
      {"map", "-s", "x", top},
      {"map"},
      {"measure", "-O", "raw", top},
      {"measure", "-O", "raw", raw},
      {"measure", "-O", "qcow2", "-f", "raw", raw},
      {"measure", "--output=json", "-O", "qcow2", "-o", "cluster_size=2M", "-o", "refcount_bits=1",
       top},
      {"measure", "-O", "qcow2", "--size", "10G"},
      {"measure", "-O", "raw", "--size=10G"},
      {"measure", "-O", "qcow2", "--size=10G", "-o", "preallocation=full"},
      {"measure", "-O", "qcow2", "-l", "first", top},
      {"measure", "-O", "qcow2", "-l", "snapshot.name=first", top},
      {"measure", "-O", "qcow2", "-l", "snapshot.id=1", top},
      {"measure", "-O", "qcow2", "-l", "snapshot.id=7", top},
      {"measure", "-O", "qcow2", "--force-share", "--image-opts", options},
      {"measure", "-O", "vmdk", top},
      {"measure", "-O", "qcow2"},
      {"measure", "-O", "qcow2", "-o", "foo=bar", top},
      {"measure", "--size", "1G", top},
      {"snapshot", "-U", "-l", top},
      {"snapshot", "-q", "-l", top},
      {"snapshot", "-l", "--image-opts", options},
      {"snapshot", "-l", raw},
      {"snapshot", "-d", "none", top},
      {"snapshot", "-a", "none", top},
      {"snapshot", "-l", "-c", "x", top},
      {"snapshot"},
      {"compare", "-s", top, top},
      {"compare", "-f", "qcow2", "-F", "qcow2", "--force-share", top, base},
      {"compare", "--image-opts", options, "driver=qcow2,file.filename=" + base},
      {"compare", "--object", object, "file:" + top, json},
      {"compare", "-F", "raw", top, raw},
      {"compare", "-s", "-f", "raw", raw, top},
      {"compare", "-q", "-f", "raw", raw, top},
      {"compare", "-T", "foo", top, base},
      {"compare", top, folder / "nowhere"},
  };
  for (const Words& command : commands) {
    INFO(support::shell_line(command));
    CHECK(drop_in::describe(differences(command)) == "");
  }
  // After a usage error, qemu-img exits with 1, which a script takes for a difference.
  CHECK(support::run({"qemu-img", "compare", top}).exit_code == 1);
  CHECK(tool_test::run_tool({"compare", top}).exit_code == 2);
  // Progress of qemu-img is mixed with its output.
  const auto shown = tool_test::run_tool({"compare", "-p", top, top});
  CHECK(shown.out == "Images are identical.\n");
  CHECK_THAT(shown.err, Catch::Contains("(100.00/100%)"));
}
