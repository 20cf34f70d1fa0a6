// A loss of power at each step of a live run: only what was flushed is there afterwards.
#include <filesystem>

#include "tests/catch_text.h"
#include "tests/live/hand_qemu.h"
#include "tests/live/lossy_filesystem.h"
#include "tests/live/written_disk.h"
#include "tests/support/raw_file.h"

using namespace vc;

using live_test::HandQemu;
using live_test::kDisk;
using live_test::kDiskAndBackup;
using live_test::kOptimized;
using live_test::kOriginal;
using live_test::LossyFilesystem;
using live_test::stop_at;
using live_test::TestDomain;
using live_test::WrittenDisks;

namespace fs = std::filesystem;

namespace {

bool is_missing(const LossyFilesystem& filesystem) {
  if (!filesystem.missing().empty()) WARN("skipped: " + filesystem.missing());
  return !filesystem.missing().empty();
}

}  // namespace

TEST_CASE("a loss of power loses what was not flushed", "[live]") {
  LossyFilesystem filesystem;
  if (is_missing(filesystem)) return;
  const support::TempDirectory folder;
  support::write_file(folder / "flushed", std::string("old"));
  filesystem.mount_on(folder.path());
  support::write_file(folder / "flushed", std::string("new"));
  support::write_file(folder / "other", std::string("x"));
  filesystem.lose_power();
  CHECK(support::list_directory(folder.path()) == std::vector<std::string>{"flushed"});
  CHECK(live_test::text_of(folder / "flushed") != "new");
  filesystem.unmount();
}

TEST_CASE("a live run is completed or undone after a loss of power at any step", "[live]") {
  LossyFilesystem filesystem;
  if (is_missing(filesystem)) return;
  const tune_test::LibvirtDaemon daemon;
  WrittenDisks disk(daemon);
  const TestDomain& domain = disk.domain();
  const fs::path folder = fs::path(domain.disk()).parent_path();
  daemon.virsh({"destroy", "web"});
  filesystem.mount_on(folder);
  domain.start();
  for (const bool starts : {false, true}) {
    for (const std::string step : {"begin", "overlay", "second-overlay", "second-overlay-pivot",
                                   "copy", "swap", "mirror", "mirror-pivot", "clean-up"}) {
      CAPTURE(starts, step);
      disk.write_some();
      {
        TestDomain::Stopped run(domain, {"optimize", "--live", "--force", "web"}, stop_at(step));
        disk.write_some();
        run.kill();
        domain.kill_qemu();
      }
      filesystem.lose_power();
      if (starts) {
        daemon.virsh({"start", "web"});
        disk.write_some();
      }
      if (fs::exists(folder / ".disk0.qcow2.journal")) {
        const auto done = domain.tool({"optimize", "--resume", domain.disk()});
        INFO(done.describe());
        CHECK(done.ok());
      }
      const bool stays = step == "begin" || step == "overlay" || (!starts && step != "clean-up");
      CHECK(domain.files() == (stays ? kOriginal : kOptimized));
      if (starts) {
        disk.write_some();
        domain.kill_qemu();
      }
      CHECK(disk.complaint() == "");
      fs::remove(domain.disk() + ".bak");
      domain.start();
    }
  }
  domain.kill_qemu();
  filesystem.unmount();
}

TEST_CASE("a run over QMP is completed or undone after a loss of power at any step",
          "[live][qmp]") {
  LossyFilesystem filesystem;
  if (is_missing(filesystem)) return;
  HandQemu qemu(HandQemu::Style::kDrive);
  const fs::path folder = fs::path(qemu.disk()).parent_path();
  qemu.kill();
  filesystem.mount_on(folder);
  qemu.start();
  for (const bool forward : {true, false}) {
    for (const std::string step :
         {"begin", "overlay", "copy", "mirror", "mirror-pivot", "clean-up"}) {
      CAPTURE(forward, step);
      qemu.write_some();
      {
        auto run = qemu.stopped({"optimize", "--live", "--force", qemu.disk()}, stop_at(step));
        qemu.write_some();
        run.kill();
        qemu.kill();
      }
      filesystem.lose_power();
      CHECK(qemu.complaint() == "");
      qemu.start();
      qemu.write_some();
      if (fs::exists(folder / ".disk.qcow2.journal")) {
        const auto done = forward ? qemu.tool({"optimize", "--resume", qemu.disk()})
                                  : qemu.tool({"rollback", qemu.disk()});
        INFO(done.describe());
        CHECK(done.ok());
      }
      const bool stays = step != "clean-up" && (!forward || step == "begin" || step == "overlay");
      CHECK(qemu.files() == (stays ? kDisk : kDiskAndBackup));
      qemu.write_some();
      qemu.kill();
      CHECK(qemu.complaint() == "");
      fs::remove(qemu.disk() + ".bak");
      qemu.start();
    }
  }
  qemu.kill();
  filesystem.unmount();
}
