// Runs commands in a folder that another process changes at the worst moment: see planted.cc.
#include <filesystem>

#include "tests/catch.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using Catch::Contains;
using support::TempDirectory;

namespace fs = std::filesystem;

namespace {

constexpr const char* kComplaint = "another process has replaced this file";

// A folder with a disk, its backup, and a file of another user.
class Folder {
 public:
  Folder() {
    put("disk", "the disk now");
    put("disk.bak", "the disk before");
    put("planted", "somebody else's");
  }

  // Runs `virt-compact COMMAND`, a shell line, in the folder. At `moment`, the file "planted" gets
  // the name `name`. `more`: other variables or libraries.
  support::Outcome run(const std::string& command, const std::string& moment,
                       const std::string& name, const std::string& more = "") const {
    return tool_test::run_script(
        "cd \"$1\" && VIRT_COMPACT_PLANT_FROM=\"$1/planted\" VIRT_COMPACT_PLANT_TO=\"$1/" + name +
            "\" VIRT_COMPACT_MOMENT=" + moment +
            " ASAN_OPTIONS=verify_asan_link_order=0 LD_PRELOAD=\"$VIRT_COMPACT_PLANTED\" " + more +
            " \"$VIRT_COMPACT\" " + command,
        {folder_.path()});
  }

  support::Outcome roll_back(const std::string& moment, const std::string& name, bool exchanges,
                             const std::string& options = "") const {
    return run("rollback " + options + " disk", moment, name,
               std::string("VIRT_COMPACT_OPENED=disk.bak ") +
                   (exchanges ? "" : "VIRT_COMPACT_NO_EXCHANGE=1"));
  }

  void put(const std::string& name, const std::string& text) const {
    support::write_file(folder_ / name, text);
  }

  std::string operator/(const std::string& name) const { return folder_ / name; }

  std::string content(const std::string& name) const {
    if (!fs::exists(folder_ / name)) return "";
    const auto bytes = support::read_file(folder_ / name);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

 private:
  const TempDirectory folder_;
};

}  // namespace

TEST_CASE("a rollback without a race exchanges the names, or has the same result", "[planted]") {
  const bool exchanges = GENERATE(false, true);
  CAPTURE(exchanges);
  const Folder folder;
  const auto outcome = folder.roll_back("never", "disk", exchanges);
  INFO(outcome.describe());
  CHECK(outcome.ok());
  CHECK(folder.content("disk") == "the disk before");
  CHECK(folder.content(exchanges ? "disk.bak" : "disk.rolled-back") == "the disk now");
}

TEST_CASE("a rollback renames no file that has taken the name of the disk or the backup",
          "[planted]") {
  const std::string name = GENERATE("disk", "disk.bak");
  const bool exchanges = GENERATE(false, true);
  CAPTURE(name, exchanges);
  const Folder folder;
  const auto outcome = folder.roll_back("opened", name, exchanges);
  INFO(outcome.describe());
  CHECK(outcome.exit_code == 1);
  // The error must not claim that the change was undone.
  CHECK_THAT(outcome.err,
             Contains(name + ": " + kComplaint) && !Contains("the rollback was not done"));
  CHECK(folder.content(name) == "somebody else's");
  CHECK(folder.content("disk") == (name == "disk" ? "somebody else's" : "the disk now"));
  CHECK(folder.content("disk.bak") == (name == "disk" ? "the disk before" : "somebody else's"));
}

TEST_CASE("a rollback undoes an exchange with another file", "[planted]") {
  const std::string name = GENERATE("disk", "disk.bak");
  CAPTURE(name);
  const Folder folder;
  const auto outcome = folder.roll_back("exchanging", name, true);
  INFO(outcome.describe());
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err, Contains(kComplaint) && Contains("the rollback was not done"));
  CHECK(folder.content("disk") == (name == "disk" ? "somebody else's" : "the disk now"));
  CHECK(folder.content("disk.bak") == (name == "disk" ? "the disk before" : "somebody else's"));
}

TEST_CASE("without an atomic exchange, a rollback checks the files again before it renames",
          "[planted]") {
  const std::string name = GENERATE("disk", "disk.bak");
  CAPTURE(name);
  const Folder folder;
  const auto outcome = folder.roll_back("flushed", name, false);
  INFO(outcome.describe());
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err, Contains(name + ": " + kComplaint));
  CHECK(folder.content(name) == "somebody else's");
  CHECK(folder.content("disk") == (name == "disk" ? "somebody else's" : "the disk now"));
  // The replaced disk has a name in any case.
  CHECK(folder.content("disk.rolled-back") == (name == "disk" ? "the disk now" : ""));
}

TEST_CASE("rollback --remove removes only the replaced disk", "[planted]") {
  const Folder folder;
  const auto outcome = folder.roll_back("flushed", "disk.bak", true, "--remove");
  INFO(outcome.describe());
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err, Contains("disk.bak: " + std::string(kComplaint)));
  CHECK(folder.content("disk") == "the disk before");
  CHECK(folder.content("disk.bak") == "somebody else's");
}

TEST_CASE("a copy reports that another file has taken the name of its result", "[planted]") {
  const bool replaces = GENERATE(false, true);
  CAPTURE(replaces);
  const Folder folder;
  if (replaces) folder.put("copy", "an older copy");
  const auto outcome = folder.run("copy -q -f raw -O raw --force disk copy",
                                  replaces ? "renamed" : "linked", "copy");
  INFO(outcome.describe());
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err, Contains("the new file is lost"));
  CHECK(folder.content("copy") == "somebody else's");
}

TEST_CASE("a copy replaces the file that it has inspected, and no other", "[planted]") {
  const Folder folder;
  folder.put("copy", "an older copy");
  const auto outcome = folder.run("copy -q -f raw -O raw --force disk copy", "opening", "copy",
                                  "VIRT_COMPACT_OPENED=copy");
  INFO(outcome.describe());
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err, Contains("another process has just replaced the file"));
  CHECK(folder.content("copy") == "somebody else's");
}

TEST_CASE("a copy follows the link that it has inspected, and no other", "[planted]") {
  const Folder folder;
  folder.put("older", "an older copy");
  folder.put("victim", "precious");
  fs::create_symlink("older", folder / "link");
  fs::remove(folder / "planted");
  fs::create_symlink("victim", folder / "planted");
  const auto outcome = folder.run("copy -q -f raw -O raw --force disk link", "resolving", "link");
  INFO(outcome.describe());
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err, Contains("another process has just replaced the link"));
  CHECK(folder.content("victim") == "precious");
  CHECK(folder.content("older") == "an older copy");
}

namespace {

// Makes a disk that can become smaller.
void make_image(const Folder& folder) {
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", folder / "disk", "8M"});
  support::run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 1M", "-c",
                   "write -q -P 0 2M 4M", folder / "disk"});
  fs::remove(folder / "disk.bak");
}

}  // namespace

TEST_CASE("optimize reports that the disk is another file right after the swap", "[planted]") {
  const Folder folder;
  make_image(folder);
  const auto old = folder.content("disk");
  const auto outcome = folder.run("optimize -q --no-trim --force disk", "renamed", "disk");
  INFO(outcome.describe());
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err, Contains(kComplaint) && Contains("is neither the old disk"));
  CHECK((folder.content("disk") == "somebody else's"));
  CHECK((folder.content("disk.bak") == old));
}

TEST_CASE("without hard links, optimize checks both files before and after the exchange",
          "[planted]") {
  const std::string moment = GENERATE("exchanging", "exchanged");
  const std::string name = GENERATE("disk", ".disk.fresh");
  CAPTURE(moment, name);
  const Folder folder;
  make_image(folder);
  const auto outcome = folder.run("optimize -q --no-trim --force disk", moment, name,
                                  "LD_PRELOAD=\"$VIRT_COMPACT_NO_LINKS $VIRT_COMPACT_PLANTED\"");
  INFO(outcome.describe());
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err, Contains(kComplaint));
  // An exchange gives it the other name.
  const bool moved = moment == "exchanging";
  CHECK((folder.content((name == "disk") != moved ? "disk" : ".disk.fresh") == "somebody else's"));
}
