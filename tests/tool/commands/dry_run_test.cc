// With --dry-run, a command reports what it would do, and opens no file for writing.

#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

namespace {

using nlohmann::json;
using tool_test::run_tool;
using Words = std::vector<std::string>;

// Records every file in a folder that is created, written, opened for writing, renamed or removed.
class Watch {
 public:
  explicit Watch(const std::string& folder) : fd_(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {
    REQUIRE(fd_ >= 0);
    REQUIRE(::inotify_add_watch(fd_, folder.c_str(),
                                IN_CLOSE_WRITE | IN_MODIFY | IN_ATTRIB | IN_CREATE | IN_DELETE |
                                    IN_MOVED_FROM | IN_MOVED_TO) >= 0);
  }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  ~Watch() { ::close(fd_); }

  // Ignores temporary files without a name ("#INODE"): optimize finds out whether the folder may be
  // written to.
  bool heard() const {
    alignas(inotify_event) std::array<char, 4096> events{};
    const ssize_t length = ::read(fd_, events.data(), events.size());
    for (ssize_t at = 0; at < length;) {
      const auto* const it = reinterpret_cast<const inotify_event*>(events.data() + at);
      if (it->len == 0 || it->name[0] != '#') return true;
      at += static_cast<ssize_t>(sizeof *it + it->len);
    }
    return false;
  }

 private:
  int fd_;
};

// Returns each file's name and content.
std::vector<std::pair<std::string, std::vector<std::byte>>> content_of(const std::string& folder) {
  std::vector<std::pair<std::string, std::vector<std::byte>>> all;
  for (const auto& it : std::filesystem::directory_iterator(folder))
    all.emplace_back(it.path().string(), support::read_file(it.path().string()));
  std::sort(all.begin(), all.end());
  return all;
}

// Makes an overlay with two snapshots, an image with a leak, a filesystem, and a domain.
void make_images(const support::TempDirectory& folder) {
  const std::string top = folder / "top.qcow2";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", folder / "base.qcow2", "8M"});
  support::run_ok({"qemu-io", "-c", "write -q -P 1 0 2M", folder / "base.qcow2"});
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2",
                   folder / "over.qcow2"});
  support::run_ok({"qemu-io", "-c", "write -q -P 2 1M 1M", folder / "over.qcow2"});
  support::run_ok({"cp", folder / "base.qcow2", top});
  support::run_ok({"qemu-img", "snapshot", "-c", "first", top});
  support::run_ok({"qemu-io", "-c", "write -q -P 3 0 1M", top});
  support::run_ok({"qemu-img", "snapshot", "-c", "second", top});
  // Removes an L2 entry, so that a cluster leaks.
  support::run_ok({"cp", folder / "base.qcow2", folder / "leaks.qcow2"});
  tool_test::run_script(
      "printf '\\0\\0\\0\\0\\0\\0\\0\\0' | dd of=\"$1\" bs=1 seek=262152 conv=notrunc 2>/dev/null",
      {folder / "leaks.qcow2"});
  support::run_ok({"mke2fs", "-q", "-t", "ext4", "-E", "nodiscard", folder / "guest.raw", "8M"});
  support::write_file(folder / "guest.xml",
                      std::string("<domain><name>guest</name><devices><disk type='file'>\n"
                                  "<driver name='qemu' type='qcow2' cache='writeback'/>\n"
                                  "<source file='/nowhere/guest.qcow2'/><target dev='vda'/>\n"
                                  "</disk></devices></domain>\n"));
}

json checked_json(const Words& command) {
  const auto outcome = run_tool(command);
  INFO(support::shell_line(command) << outcome.describe());
  const json answer = json::parse(outcome.out, nullptr, false);
  REQUIRE(answer.is_object());
  CHECK(answer["dry-run"] == true);
  return answer;
}

}  // namespace

TEST_CASE("a dry run opens nothing for writing", "[dry-run]") {
  const support::TempDirectory folder;
  make_images(folder);
  const std::string top = folder / "top.qcow2";
  const std::string over = folder / "over.qcow2";
  const std::string leaks = folder / "leaks.qcow2";
  REQUIRE(run_tool({"check", leaks}).exit_code == 3);
  const auto before = content_of(folder.path());
  for (const Words& command : std::vector<Words>{
           {"copy", "--dry-run", top, folder / "new.qcow2"},
           {"copy", "--dry-run", "-c", top, folder / "new.qcow2"},
           {"copy", "--dry-run", "--force", top, over},
           {"copy", "--dry-run", "-O", "raw", top, folder / "new"},
           {"copy", "--dry-run", "--verify", "--snapshot", "first", top, folder / "new"},
           {"compact", "--dry-run", top},
           {"compact", "--dry-run", leaks},
           {"copy", "--dry-run", "--with-snapshots", top, folder / "new"},
           {"flatten", "--dry-run", over, folder / "new"},
           {"flatten", "--dry-run", "--in-place", over},
           {"snapshot", "--dry-run", "-c", "third", top},
           {"snapshot", "--dry-run", "-d", "first", top},
           {"snapshot", "--dry-run", "-a", "first", top},
           {"snapshot", "--dry-run", "--export", "first", top, folder / "new"},
           {"check", "--dry-run", "-r", "leaks", leaks},
           {"check", "--dry-run", "-r", "all", leaks},
           {"check", "--dry-run", "-r", "all", "--lossy", top},
           {"bench", "--dry-run", "-w", "-c", "10", top},
           {"optimize", "--dry-run", "--drop-snapshots", "--trim=none", top},
           {"optimize", "--dry-run", "--trim=none", top},
           {"optimize", "--dry-run", "--repair", leaks},
           {"optimize", "--dry-run", "-o", folder / "new", over},
           {"trim", "--dry-run", "--metadata", folder / "guest.raw"},
           {"rebase", "--dry-run", "-u", "-b", "", over},
           {"tune", "--dry-run", folder / "guest.xml"},
       }) {
    INFO(support::shell_line(command));
    const Watch watch(folder.path());
    const auto outcome = run_tool(command);
    INFO(outcome.describe());
    CHECK(outcome.exit_code == (command[0] == "check" && command.back() == leaks ? 3 : 0));
    CHECK_FALSE(watch.heard());
    CHECK_THAT(outcome.out,
               Catch::Contains("Nothing was written") || Catch::Contains("Nothing was changed"));
    CHECK(content_of(folder.path()) == before);
  }
  // Shows that the watch works.
  const Watch watch(folder.path());
  CHECK(run_tool({"check", "-r", "leaks", leaks}).ok());
  CHECK(watch.heard());
}

TEST_CASE("the figures of a dry run are those of the real run", "[dry-run]") {
  const support::TempDirectory folder;
  make_images(folder);
  const std::string top = folder / "top.qcow2";
  const std::string over = folder / "over.qcow2";
  const std::string leaks = folder / "leaks.qcow2";

  const json copy = checked_json({"copy", "--dry-run", "--json", top, folder / "new"});
  const auto copied = run_tool({"copy", "--json", top, folder / "new"});
  CHECK(copy["file-size"] == json::parse(copied.out)["after"]["length"]);
  CHECK(copy["clusters"] == json::parse(copied.out)["clusters"]);

  const json flat = checked_json({"flatten", "--dry-run", "--json", "--in-place", over});
  const auto flattened = run_tool({"flatten", "--json", "--in-place", over});
  CHECK(flat["written"] == json::parse(flattened.out)["written"]);
  CHECK(flat["written"] == 1 << 20);

  const json mended = checked_json({"check", "--dry-run", "--json", "-r", "leaks", leaks});
  CHECK(mended["would-fix"] == json({{"corruptions", 0}, {"leaks", 1}}));
  CHECK(mended["leaks"] == 1);
  CHECK(json::parse(run_tool({"check", "--json", "-r", "leaks", leaks}).out)["leaks-fixed"] == 1);

  for (const Words& action :
       std::vector<Words>{{"-c", "third"}, {"-d", "first"}, {"-a", "first"}}) {
    const std::string image = folder / "copy.qcow2";
    support::run_ok({"cp", top, image});
    Words command = {"snapshot", "--output=json", action[0], action[1], image};
    const json done = json::parse(run_tool(command).out);
    support::run_ok({"cp", top, image});
    command.insert(command.begin() + 1, "--dry-run");
    const json told = checked_json(command);
    for (const char* key : {"id", "name", "action", "used-before", "used-after"}) {
      CAPTURE(action, key);
      CHECK(told[key] == done[key]);
    }
    if (action[0] == "-d") CHECK(told["used-after"] < told["used-before"]);
  }
}

TEST_CASE("a dry run fails where the real one would", "[dry-run]") {
  const support::TempDirectory folder;
  make_images(folder);
  const std::string top = folder / "top.qcow2";
  const struct {
    Words command;
    const char* message;
  } cases[] = {
      {{"copy", "--dry-run", top, folder / "over.qcow2"}, "use --force to replace it"},
      {{"copy", "--dry-run", top, top}, "source and destination are the same file"},
      {{"copy", "--dry-run", top, folder / "none/new"}, "No such file or directory"},
      {{"copy", "--dry-run", top, folder.path()}, "is a directory"},
      {{"snapshot", "--dry-run", "-d", "none", top}, "there is no snapshot 'none'"},
      {{"snapshot", "--dry-run", "-l", top}, "a list changes nothing"},
      {{"flatten", "--dry-run", "--in-place", top}, "has no backing file"},
      {{"check", "--dry-run", top}, "--dry-run needs -r"},
  };
  for (const auto& it : cases) {
    INFO(support::shell_line(it.command));
    const auto outcome = run_tool(it.command);
    CHECK(outcome.exit_code == 1);
    CHECK_THAT(outcome.err, Catch::Contains(it.message));
  }
}

TEST_CASE("punch --dry-run frees nothing", "[dry-run]") {
  const support::TempDirectory folder;
  const std::string disk = folder / "disk";
  support::write_file(disk, std::string(1 << 20, '\0'));
  const Words server = {"[", "nbdkit", "file", disk, "]"};
  const auto blocks = [&] { return support::run_ok({"stat", "-c", "%b", disk}).out; };
  const std::string before = blocks();
  const json told =
      checked_json({"punch", "--dry-run", "--json", "[", "nbdkit", "file", disk, "]"});
  CHECK(told["zero"] == 1 << 20);
  CHECK(told["punched"] == 0);
  CHECK(blocks() == before);
  CHECK_THAT(
      run_tool({"punch", "--dry-run", "[", "nbdkit", "file", disk, "]"}).out,
      Catch::Contains("1 MiB would be deallocated\n") && Catch::EndsWith("Nothing was written.\n"));
  CHECK(run_tool({"punch", "-q", "[", "nbdkit", "file", disk, "]"}).ok());
  CHECK(blocks() != before);
}

TEST_CASE("rollback --dry-run exchanges nothing, and JSON says that it was a dry run",
          "[dry-run]") {
  const support::TempDirectory folder;
  const std::string disk = folder / "disk";
  support::write_file(disk, std::string("new"));
  support::write_file(disk + ".bak", std::string("old"));
  const auto before = content_of(folder.path());
  for (const bool remove : {false, true}) {
    CAPTURE(remove);
    Words command{"rollback", "--dry-run", disk};
    if (remove) command.emplace_back("--remove");
    const Watch watch(folder.path());
    const auto outcome = run_tool(command);
    INFO(outcome.describe());
    CHECK(outcome.ok());
    CHECK_THAT(outcome.out, Catch::Contains("would be") && Catch::Contains("Nothing was changed"));
    command.emplace_back("--json");
    CHECK(checked_json(command).contains("backup") != remove);
    CHECK_FALSE(watch.heard());
  }
  CHECK(content_of(folder.path()) == before);
  const json done = json::parse(run_tool({"rollback", "--json", disk}).out);
  CHECK(done == json({{"disk", disk}, {"backup", disk + ".bak"}, {"dry-run", false}}));
  CHECK(support::read_file(disk) == before[1].second);
}
