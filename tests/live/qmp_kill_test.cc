// Kills the command and QEMU at each step of a run over QMP, and brings the disk to both ends.

#include <filesystem>

#include "tests/catch_text.h"
#include "tests/live/hand_qemu.h"
#include "tests/support/command_line.h"

using namespace vc;

using live_test::HandQemu;
using live_test::inode;
using live_test::kDisk;
using live_test::kDiskAndBackup;
using live_test::stop_at;
using Style = HandQemu::Style;

namespace fs = std::filesystem;

namespace {

// In the order of a run.
const std::vector<std::string> kSteps{"begin",  "overlay",      "copy",
                                      "mirror", "mirror-pivot", "clean-up"};
// Each is sent to QEMU while the guest is paused. The first ones, for the overlay.
const std::vector<std::string> kCommands{"blockdev-snapshot", "blockdev-reopen", "blockdev-del",
                                         "job-complete",      "job-dismiss",     "cont"};

bool has_journal(const HandQemu& qemu) {
  return fs::exists(fs::path(qemu.disk()).parent_path() / ".disk.qcow2.journal");
}

support::Outcome end(const HandQemu& qemu, bool forward) {
  return forward ? qemu.tool({"optimize", "--resume", qemu.disk()})
                 : qemu.tool({"rollback", qemu.disk()});
}

}  // namespace

TEST_CASE("a run over QMP that is killed at any step is completed or undone", "[live][qmp]") {
  const auto style = GENERATE(values({Style::kDrive, Style::kBlockdev, Style::kFilter}));
  HandQemu qemu(style);
  for (const bool forward : {true, false}) {
    for (const std::string& step : kSteps) {
      CAPTURE(forward, step);
      const ino_t before = inode(qemu.disk());
      qemu.write_some();
      auto run = qemu.stopped({"optimize", "--live", "--force", qemu.disk()}, stop_at(step));
      qemu.write_some();
      run.kill();
      qemu.write_some();
      const auto done = end(qemu, forward);
      INFO(done.describe());
      CHECK(done.ok());
      qemu.write_some();
      const bool is_original =
          step != "clean-up" && (!forward || step == "begin" || step == "overlay");
      CHECK(qemu.files() == (is_original ? kDisk : kDiskAndBackup));
      CHECK((inode(qemu.disk()) == before) == is_original);
      CHECK(qemu.status() == "running");
      CHECK(qemu.nodes_of(qemu.disk()).size() == 2);
      qemu.kill();
      CHECK(qemu.complaint() == "");
      fs::remove(qemu.disk() + ".bak");
      qemu.start();
    }
  }
}

TEST_CASE("a guest that is paused when the command is killed over QMP continues", "[live][qmp]") {
  const auto style = GENERATE(values({Style::kDrive, Style::kBlockdev}));
  HandQemu qemu(style);
  for (const bool forward : {true, false}) {
    for (const std::string& command : kCommands) {
      CAPTURE(forward, command);
      qemu.write_some();
      auto run = qemu.stopped({"optimize", "--live", "--force", qemu.disk()},
                              "VIRT_COMPACT_STOP_IN=" + command);
      const bool was_paused = qemu.status() == "paused";
      CHECK((was_paused || command == "blockdev-del"));
      run.kill();
      live_test::wait_until("the guest stays paused", [&] { return qemu.status() == "running"; });
      // The owner's command would start the guest with all it has written.
      qemu.write_some();
      if (forward) {
        qemu.kill();
        CHECK(qemu.complaint() == "");
        qemu.start();
        qemu.write_some();
      }
      if (has_journal(qemu)) {
        const auto done = end(qemu, forward);
        INFO(done.describe());
        CHECK(done.ok());
      }
      qemu.write_some();
      CHECK(qemu.nodes_of(qemu.disk()).size() == 2);
      qemu.kill();
      CHECK(qemu.complaint() == "");
      fs::remove(qemu.disk() + ".bak");
      CHECK(qemu.files() == kDisk);
      qemu.start();
    }
  }
}

TEST_CASE("after QEMU was killed at any step, its disk has all that was written", "[live][qmp]") {
  HandQemu qemu(Style::kDrive);
  for (const bool starts : {true, false}) {
    for (const bool forward : {true, false}) {
      for (const std::string& step : kSteps) {
        CAPTURE(starts, forward, step);
        qemu.write_some();
        auto run = qemu.stopped({"optimize", "--live", "--force", qemu.disk()}, stop_at(step));
        qemu.write_some();
        qemu.kill();
        if (forward) {
          run.go_on();
          const std::string text = run.finish();
          INFO(text);
          if (has_journal(qemu)) CHECK_THAT(text, Catch::Contains("--resume --qmp"));
        }
        run.kill();
        CHECK(qemu.complaint() == "");
        if (starts) {
          qemu.start();
          qemu.write_some();
        }
        if (has_journal(qemu)) {
          const auto done = end(qemu, forward);
          INFO(done.describe());
          CHECK(done.ok());
        }
        if (starts) {
          qemu.write_some();
          qemu.kill();
        }
        CHECK(qemu.complaint() == "");
        fs::remove(qemu.disk() + ".bak");
        CHECK(qemu.files() == kDisk);
        qemu.start();
      }
    }
  }
}
