// Kills the command at each step of an undo, and brings the disk to both ends.

#include <filesystem>

#include "tests/catch_text.h"
#include "tests/live/hand_qemu.h"
#include "tests/live/written_disk.h"
#include "tests/support/command_line.h"

using namespace vc;

using live_test::HandQemu;
using live_test::inode;
using live_test::kDisk;
using live_test::kDiskAndBackup;
using live_test::kOptimized;
using live_test::kOriginal;
using live_test::stop_at;
using live_test::TestDomain;
using live_test::WrittenDisks;

namespace fs = std::filesystem;

namespace {

// Stops `optimize --live` at the step "copy", and kills it.
void stop_run(WrittenDisks& disk) {
  TestDomain::Stopped run(disk.domain(), {"optimize", "--live", "--force", "web"}, stop_at("copy"));
  disk.write_some();
  run.kill();
}

void stop_run(HandQemu& qemu) {
  auto run = qemu.stopped({"optimize", "--live", "--force", qemu.disk()}, stop_at("copy"));
  qemu.write_some();
  run.kill();
}

std::vector<std::string> command(bool forward, const std::string& disk) {
  return forward ? std::vector<std::string>{"optimize", "--resume", disk}
                 : std::vector<std::string>{"rollback", disk};
}

}  // namespace

TEST_CASE("an undo that is killed at any step is completed, or the run is", "[live]") {
  const tune_test::LibvirtDaemon daemon;
  WrittenDisks disk(daemon);
  const TestDomain& domain = disk.domain();
  for (const bool forward : {true, false}) {
    for (const std::string step : {"undo-overlay", "undo-overlay-pivot", "undo-commit",
                                   "undo-commit-pivot", "undo-clean-up"}) {
      CAPTURE(forward, step);
      const ino_t before = inode(domain.disk());
      stop_run(disk);
      {
        TestDomain::Stopped undo(domain, {"rollback", domain.disk()}, stop_at(step));
        disk.write_some();
        undo.kill();
      }
      disk.write_some();
      const auto done = domain.tool(command(forward, domain.disk()));
      INFO(done.describe());
      CHECK(done.ok());
      disk.write_some();
      const bool is_original = !forward || !step.starts_with("undo-overlay");
      CHECK(domain.files() == (is_original ? kOriginal : kOptimized));
      CHECK((inode(domain.disk()) == before) == is_original);
      CHECK(domain.source() == domain.disk());
      CHECK(domain.state() == "running");
      domain.kill_qemu();
      CHECK(disk.complaint() == "");
      fs::remove(domain.disk() + ".bak");
      domain.start();
    }
  }
}

TEST_CASE("an undo of a domain that is off is completed after a kill", "[live]") {
  const tune_test::LibvirtDaemon daemon;
  WrittenDisks disk(daemon);
  const TestDomain& domain = disk.domain();
  for (const bool forward : {true, false}) {
    for (const std::string step : {"undo-offline", "undo-clean-up"}) {
      CAPTURE(forward, step);
      stop_run(disk);
      domain.kill_qemu();
      TestDomain::Stopped(domain, {"rollback", domain.disk()}, stop_at(step)).kill();
      const auto done = domain.tool(command(forward, domain.disk()));
      INFO(done.describe());
      CHECK(done.ok());
      CHECK(domain.files() == kOriginal);
      CHECK(disk.complaint() == "");
      domain.start();
    }
  }
}

TEST_CASE("an undo over QMP that is killed at any step is completed, or the run is",
          "[live][qmp]") {
  HandQemu qemu(HandQemu::Style::kDrive);
  for (const bool forward : {true, false}) {
    for (const std::string step : {"undo-mirror", "undo-mirror-pivot", "undo-clean-up"}) {
      CAPTURE(forward, step);
      const ino_t before = inode(qemu.disk());
      stop_run(qemu);
      {
        auto undo = qemu.stopped({"rollback", qemu.disk()}, stop_at(step));
        qemu.write_some();
        undo.kill();
      }
      qemu.write_some();
      const auto done = qemu.tool(command(forward, qemu.disk()));
      INFO(done.describe());
      CHECK(done.ok());
      qemu.write_some();
      const bool is_original = !forward || step == "undo-clean-up";
      CHECK(qemu.files() == (is_original ? kDisk : kDiskAndBackup));
      CHECK((inode(qemu.disk()) == before) == is_original);
      CHECK(qemu.status() == "running");
      qemu.kill();
      CHECK(qemu.complaint() == "");
      fs::remove(qemu.disk() + ".bak");
      qemu.start();
    }
    for (const std::string step : {"undo-offline", "undo-clean-up"}) {
      CAPTURE(forward, step);
      stop_run(qemu);
      qemu.kill();
      qemu.stopped({"rollback", qemu.disk()}, stop_at(step)).kill();
      const auto done = qemu.tool(command(forward, qemu.disk()));
      INFO(done.describe());
      CHECK(done.ok());
      CHECK(qemu.files() == kDisk);
      CHECK(qemu.complaint() == "");
      qemu.start();
    }
  }
}
