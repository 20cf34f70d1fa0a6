// Rollback in a folder that another process changes at the worst moment: see planted.cc.
#include <filesystem>

#include "tests/catch.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"
#include "tests/tool/command_line.h"

using Catch::Contains;
using support::TempDirectory;

namespace fs = std::filesystem;

namespace {

constexpr const char* kComplaint = "somebody has put another file here meanwhile";

// A disk and its backup, and a file of somebody else's.
class Folder {
 public:
  Folder() {
    put("disk", "the disk now");
    put("disk.bak", "the disk before");
    put("planted", "somebody else's");
  }

  // `virt-compact rollback OPTIONS DISK`, while "planted" gets the name `name` at `moment`.
  support::Outcome roll_back(const std::string& moment, const std::string& name, bool exchanges,
                             const std::string& options = "") const {
    return tool_test::run_script(
        std::string(exchanges ? "" : "VIRT_COMPACT_NO_EXCHANGE=1 ") + "VIRT_COMPACT_PLANT=" + name +
            " VIRT_COMPACT_MOMENT=" + moment +
            " ASAN_OPTIONS=verify_asan_link_order=0 LD_PRELOAD=\"$VIRT_COMPACT_PLANTED\" "
            "\"$VIRT_COMPACT\" rollback " +
            options + " \"$1\"",
        {folder_ / "disk"});
  }

  std::string content(const std::string& name) const {
    if (!fs::exists(folder_ / name)) return "";
    const auto bytes = support::read_file(folder_ / name);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

 private:
  void put(const std::string& name, const std::string& text) const {
    support::write_file(folder_ / name, text);
  }

  const TempDirectory folder_;
};

}  // namespace

TEST_CASE("a rollback without a race exchanges the names, or does what comes to the same",
          "[planted]") {
  const bool exchanges = GENERATE(false, true);
  CAPTURE(exchanges);
  const Folder folder;
  const auto outcome = folder.roll_back("never", "disk", exchanges);
  INFO(outcome.describe());
  CHECK(outcome.ok());
  CHECK(folder.content("disk") == "the disk before");
  CHECK(folder.content(exchanges ? "disk.bak" : "disk.rolled-back") == "the disk now");
}

TEST_CASE("a rollback renames no file that took the disk's name, or the backup's", "[planted]") {
  const std::string name = GENERATE("disk", "disk.bak");
  const bool exchanges = GENERATE(false, true);
  CAPTURE(name, exchanges);
  const Folder folder;
  const auto outcome = folder.roll_back("opened", name, exchanges);
  INFO(outcome.describe());
  CHECK(outcome.exit_code == 1);
  // Not that it was undone.
  CHECK_THAT(outcome.err, Contains("/" + name + ": " + kComplaint) && !Contains("no rollback"));
  CHECK(folder.content(name) == "somebody else's");
  CHECK(folder.content("disk") == (name == "disk" ? "somebody else's" : "the disk now"));
  CHECK(folder.content("disk.bak") == (name == "disk" ? "the disk before" : "somebody else's"));
}

TEST_CASE("a rollback takes back an exchange with another file", "[planted]") {
  const std::string name = GENERATE("disk", "disk.bak");
  CAPTURE(name);
  const Folder folder;
  const auto outcome = folder.roll_back("renaming", name, true);
  INFO(outcome.describe());
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err, Contains(kComplaint) && Contains("no rollback"));
  CHECK(folder.content("disk") == (name == "disk" ? "somebody else's" : "the disk now"));
  CHECK(folder.content("disk.bak") == (name == "disk" ? "the disk before" : "somebody else's"));
}

TEST_CASE("where names cannot be exchanged, a rollback looks again before it renames",
          "[planted]") {
  const std::string name = GENERATE("disk", "disk.bak");
  CAPTURE(name);
  const Folder folder;
  const auto outcome = folder.roll_back("flushed", name, false);
  INFO(outcome.describe());
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err, Contains("/" + name + ": " + kComplaint));
  CHECK(folder.content(name) == "somebody else's");
  CHECK(folder.content("disk") == (name == "disk" ? "somebody else's" : "the disk now"));
  // What was the disk has a name in any case.
  CHECK(folder.content("disk.rolled-back") == (name == "disk" ? "the disk now" : ""));
}

TEST_CASE("rollback --remove removes what was the disk, and no other file", "[planted]") {
  const Folder folder;
  const auto outcome = folder.roll_back("flushed", "disk.bak", true, "--remove");
  INFO(outcome.describe());
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err, Contains("/disk.bak: " + std::string(kComplaint)));
  CHECK(folder.content("disk") == "the disk before");
  CHECK(folder.content("disk.bak") == "somebody else's");
}
