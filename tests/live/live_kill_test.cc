// Kills the command, QEMU and libvirt's daemon at each step of a live run, and brings the disk to
// both ends.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "tests/catch_text.h"
#include "tests/live/live_guest.h"
#include "tests/live/written_disk.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"

using namespace vc;

using live_test::inode;
using live_test::kOptimized;
using live_test::kOriginal;
using live_test::LiveGuest;
using live_test::stop_at;
using live_test::TestDomain;
using live_test::WrittenDisks;
using support::run_ok;

namespace fs = std::filesystem;

namespace {

// In the order of a run.
const std::vector<std::string> kSteps{
    "begin",  "overlay",      "second-overlay", "second-overlay-pivot", "copy", "swap",
    "mirror", "mirror-pivot", "clean-up"};

bool leads_back(const std::string& step) {
  return step == "begin" || step == "overlay";
}

bool has_journal(const TestDomain& domain) {
  return fs::exists(fs::path(domain.disk()).parent_path() / ".disk0.qcow2.journal");
}

// Shuts the domain off, checks its disk, removes the backup, and starts it again.
void check_and_start(WrittenDisks& disk) {
  disk.domain().kill_qemu();
  CHECK(disk.complaint() == "");
  fs::remove(disk.domain().disk() + ".bak");
  disk.domain().start();
}

}  // namespace

TEST_CASE("a live run that is killed at any step is completed or undone", "[live]") {
  const tune_test::LibvirtDaemon daemon;
  WrittenDisks disk(daemon);
  const TestDomain& domain = disk.domain();
  for (const char* const end : {"resume", "rollback"}) {
    for (const std::string& step : kSteps) {
      CAPTURE(end, step);
      const ino_t before = inode(domain.disk());
      disk.write_some();
      TestDomain::Stopped run(domain, {"optimize", "--live", "--force", "web"}, stop_at(step));
      disk.write_some();
      run.kill();
      disk.write_some();
      // The offline commands refuse the disk.
      const auto refused = domain.tool({"optimize", "--live", "web"});
      INFO(refused.describe());
      CHECK(refused.exit_code == 1);
      CHECK_THAT(refused.err, Catch::Contains("an earlier run was stopped"));
      CHECK_THAT(domain.tool({"optimize", "--live", domain.disk()}).err,
                 Catch::Contains("an earlier run was stopped"));
      const auto done = end == std::string("resume")
                            ? domain.tool({"optimize", "--resume", domain.disk()})
                            : domain.tool({"rollback", domain.disk()});
      INFO(done.describe());
      CHECK(done.ok());
      disk.write_some();
      const bool is_original =
          step != "clean-up" && (end == std::string("rollback") || leads_back(step));
      CHECK(domain.files() == (is_original ? kOriginal : kOptimized));
      CHECK((inode(domain.disk()) == before) == is_original);
      CHECK(domain.source() == domain.disk());
      CHECK(domain.state() == "running");
      check_and_start(disk);
    }
  }
}

TEST_CASE("after QEMU was killed at any step of a live run, the disk is as before", "[live]") {
  const tune_test::LibvirtDaemon daemon;
  WrittenDisks disk(daemon);
  const TestDomain& domain = disk.domain();
  bool kills_tool = true;
  for (const std::string& step : kSteps) {
    CAPTURE(step, kills_tool);
    const ino_t before = inode(domain.disk());
    disk.write_some();
    TestDomain::Stopped run(domain, {"optimize", "--live", "--force", "web"}, stop_at(step));
    disk.write_some();
    if (kills_tool) run.kill();
    domain.kill_qemu();
    if (!kills_tool) {
      run.go_on();
      const std::string text = run.finish();
      INFO(text);
      if (has_journal(domain)) CHECK_THAT(text, Catch::Contains("--resume"));
    }
    // The next start uses the right files.
    daemon.virsh({"start", "--paused", "web"});
    daemon.virsh({"destroy", "web"});
    if (has_journal(domain)) {
      const auto refused = tool_test::run_tool({"optimize", domain.disk()});
      CHECK(refused.exit_code == 1);
      CHECK_THAT(refused.err, Catch::Contains("an earlier run was stopped"));
      const auto done = domain.tool({"optimize", "--resume", domain.disk()});
      INFO(done.describe());
      CHECK(done.ok());
    }
    const bool is_original = step != "clean-up";
    CHECK(domain.files() == (is_original ? kOriginal : kOptimized));
    CHECK((inode(domain.disk()) == before) == is_original);
    CHECK(disk.complaint() == "");
    fs::remove(domain.disk() + ".bak");
    domain.start();
    kills_tool = !kills_tool;
  }
}

TEST_CASE("after libvirt's daemon was killed at any step, a live run is resumed", "[live]") {
  tune_test::LibvirtDaemon daemon;
  WrittenDisks disk(daemon);
  const TestDomain& domain = disk.domain();
  for (const std::string& step : kSteps) {
    CAPTURE(step);
    disk.write_some();
    TestDomain::Stopped run(domain, {"optimize", "--live", "--force", "web"}, stop_at(step));
    disk.write_some();
    daemon.restart();
    run.go_on();
    const std::string text = run.finish();
    INFO(text);
    disk.write_some();
    if (has_journal(domain)) {
      const auto done = domain.tool({"optimize", "--resume", domain.disk()});
      INFO(done.describe());
      CHECK(done.ok());
    }
    CHECK(domain.files() == (leads_back(step) ? kOriginal : kOptimized));
    CHECK(domain.state() == "running");
    check_and_start(disk);
  }
}

TEST_CASE("a guest that is paused when the command is killed continues", "[live]") {
  const tune_test::LibvirtDaemon daemon;
  WrittenDisks disk(daemon);
  const TestDomain& domain = disk.domain();
  for (const char* const function : {"virDomainSnapshotCreateXML", "virDomainBlockJobAbort"}) {
    CAPTURE(function);
    TestDomain::Stopped run(domain, {"optimize", "--live", "--force", "web"},
                            fmt::format("VIRT_COMPACT_STOP_IN={}", function));
    CHECK(domain.state() == "paused");
    run.kill();
    for (unsigned i = 0; i < 600 && domain.state() == "paused"; ++i) run_ok({"sleep", "0.1"});
    CHECK(domain.state() == "running");
    const auto done = domain.tool({"rollback", domain.disk()});
    INFO(done.describe());
    CHECK(done.ok());
    CHECK(domain.files() == kOriginal);
    check_and_start(disk);
  }
}

TEST_CASE("all that a guest has flushed is there after QEMU was killed", "[live]") {
  for (const char* const step : {"overlay", "copy", "mirror-pivot"}) {
    CAPTURE(step);
    const tune_test::LibvirtDaemon daemon;
    const LiveGuest guest(daemon);
    const TestDomain& domain = guest.domain();
    TestDomain::Stopped run(domain, {"optimize", "--live", "--force", "web"}, stop_at(step));
    guest.work(3);
    domain.kill_qemu();
    run.kill();
    const auto done = domain.tool({"optimize", "--resume", domain.disk()});
    INFO(done.describe());
    CHECK(done.ok());
    CHECK(domain.files() == kOriginal);
    CHECK(domain.source(0, true) == domain.disk());
    CHECK(guest.complaint() == "");
  }
}
