// What optimize --live keeps beside the disk: internal snapshots, and checkpoints with bitmaps.
#include <fmt/format.h>

#include <filesystem>

#include "tests/catch_text.h"
#include "tests/live/written_disk.h"
#include "tests/support/command_line.h"
#include "tests/support/raw_file.h"

using namespace vc;

using live_test::kMiB;
using live_test::kOptimized;
using live_test::kOriginal;
using live_test::kRun;
using live_test::stop_at;
using live_test::TestDomain;
using live_test::WrittenDisks;
using support::run_ok;

namespace fs = std::filesystem;

namespace {

// Makes backups of the domain "web" into files.
class Backups {
 public:
  Backups(const tune_test::LibvirtDaemon& daemon, const TestDomain& domain)
      : daemon_(daemon), domain_(domain) {}

  // Makes the backup `number` with the checkpoint "pointNUMBER": of what has changed since the
  // checkpoint `since`; empty: a full one.
  void make(unsigned number, const std::string& since) const {
    const std::string backup = daemon_.folder() + "/backup.xml";
    const std::string point = daemon_.folder() + "/point.xml";
    const std::string incremental = since.empty() ? "" : "<incremental>" + since + "</incremental>";
    support::write_file(backup,
                        fmt::format("<domainbackup mode='push'>{}<disks><disk name='vda' "
                                    "type='file'><target file='{}'/><driver type='qcow2'/></disk>"
                                    "</disks></domainbackup>",
                                    incremental, file(number)));
    support::write_file(
        point, fmt::format("<domaincheckpoint><name>point{}</name></domaincheckpoint>", number));
    daemon_.hand_over();
    daemon_.virsh({"backup-begin", "web", backup, point});
    live_test::wait_until("the backup does not end", [&] {
      return daemon_.virsh({"domjobinfo", "web"}).find("None") != std::string::npos;
    });
  }

  // Compares the disk of the domain, which is off, with the backups `numbers`, the full one first.
  // Returns what is wrong; empty: nothing.
  std::string complaint(const std::vector<unsigned>& numbers) const {
    for (size_t i = 1; i < numbers.size(); ++i)
      run_ok({"qemu-img", "rebase", "-u", "-b", file(numbers[i - 1]), "-F", "qcow2",
              file(numbers[i])});
    const auto compared =
        support::run({"qemu-img", "compare", file(numbers.back()), domain_.disk()});
    return compared.ok() ? "" : compared.describe();
  }

 private:
  std::string file(unsigned number) const {
    return fmt::format("{}/backup{}.qcow2", daemon_.folder(), number);
  }

  const tune_test::LibvirtDaemon& daemon_;
  const TestDomain& domain_;
};

std::string snapshot_at(const std::string& disk, const std::string& name, const std::string& to) {
  run_ok({"qemu-img", "convert", "-U", "-l", "snapshot.name=" + name, "-O", "raw", disk, to});
  return to;
}

}  // namespace

TEST_CASE("the internal snapshots of a domain that runs are kept", "[live]") {
  const tune_test::LibvirtDaemon daemon;
  WrittenDisks disk(daemon);
  const TestDomain& domain = disk.domain();
  const std::string at_snapshot = daemon.folder() + "/at-snapshot";
  run_ok({"cp", disk.reference(), at_snapshot});
  daemon.virsh({"snapshot-create-as", "web", "first"});
  daemon.virsh({"snapshot-create-as", "web", "second"});
  disk.write_some();
  const auto done = domain.tool(kRun);
  INFO(done.describe());
  REQUIRE(done.ok());
  disk.write_some();
  CHECK(daemon.virsh({"snapshot-list", "web", "--name"}) == "first\nsecond\n");
  const std::string copy = snapshot_at(domain.disk(), "first", daemon.folder() + "/snapshot");
  CHECK(support::read_file(copy) == support::read_file(at_snapshot));

  // One that is made during a run would be lost with the overlay.
  fs::remove(domain.disk() + ".bak");
  std::vector<std::string> command = kRun;
  command.emplace_back("--drop-snapshots=second");
  TestDomain::Stopped run(domain, command, stop_at("copy"));
  daemon.virsh({"snapshot-create-as", "web", "late"});
  run.go_on();
  const std::string text = run.finish();
  INFO(text);
  CHECK_THAT(text, Catch::Contains("has 1 internal snapshot that was made during the run") &&
                       Catch::Contains("--resume"));
  const auto back = domain.tool({"rollback", domain.disk()});
  CHECK(back.exit_code == 1);
  CHECK_THAT(back.err, Catch::Contains("virsh snapshot-delete"));
  daemon.virsh({"snapshot-delete", "web", "late"});
  CHECK(domain.tool({"optimize", "--resume", domain.disk()}).ok());
  CHECK(domain.files() == kOptimized);
  CHECK(run_ok({"qemu-img", "snapshot", "-U", "-l", domain.disk()}).out.find("second") ==
        std::string::npos);

  // With the memory of the guest.
  const auto check_reverted = [&] {
    daemon.virsh({"snapshot-revert", "web", "first"});
    CHECK(domain.state() == "running");
    CHECK(domain.source() == domain.disk());
    domain.kill_qemu();
    CHECK(support::run({"qemu-img", "compare", "-F", "raw", domain.disk(), at_snapshot}).ok());
    CHECK(support::run({"qemu-img", "check", domain.disk()}).ok());
  };
  check_reverted();

  // The same after a run while the guest is shut down.
  fs::remove(domain.disk() + ".bak");
  const auto offline = tool_test::run_tool({"optimize", "-q", "--trim=none", domain.disk()});
  INFO(offline.describe());
  REQUIRE(offline.ok());
  CHECK(daemon.virsh({"snapshot-list", "web", "--name"}) == "first\nsecond\n");
  check_reverted();
}

TEST_CASE("incremental backups are right after a live run", "[live]") {
  const tune_test::LibvirtDaemon daemon;
  WrittenDisks disk(daemon);
  const TestDomain& domain = disk.domain();
  const Backups backups(daemon, domain);
  backups.make(0, "");
  disk.write(3 * kMiB, 4096);
  backups.make(1, "point0");
  // Before, during and after a run that is complete, and one that is undone.
  disk.write(5 * kMiB, 4096);
  {
    TestDomain::Stopped run(domain, kRun, stop_at("copy"));
    disk.write(7 * kMiB, 4096);
    backups.make(4, "point1");
    disk.write(8 * kMiB, 4096);
    run.go_on();
    const std::string text = run.finish();
    INFO(text);
    CHECK(domain.files() == kOptimized);
  }
  disk.write(9 * kMiB, 4096);
  fs::remove(domain.disk() + ".bak");
  {
    TestDomain::Stopped run(domain, kRun, stop_at("mirror"));
    disk.write(17 * kMiB, 4096);
    run.kill();
    disk.write(20 * kMiB, 4096);
    const auto undone = domain.tool({"rollback", domain.disk()});
    INFO(undone.describe());
    CHECK(undone.ok());
    CHECK(domain.files() == kOriginal);
  }
  // After a loss of power, the changes of the overlay are written back.
  {
    TestDomain::Stopped run(domain, kRun, stop_at("copy"));
    disk.write(21 * kMiB, 4096);
    run.kill();
    domain.kill_qemu();
    CHECK(domain.tool({"rollback", domain.disk()}).ok());
    domain.start();
  }
  disk.write(22 * kMiB, 4096);
  const auto refused =
      domain.tool({"optimize", "--live", "--force", "--drop-bitmaps", "--no-fstrim", "web"});
  CHECK(refused.exit_code == 1);
  CHECK_THAT(refused.err, Catch::Contains("virsh checkpoint-delete"));
  backups.make(2, "point1");
  backups.make(3, "point0");
  backups.make(5, "point4");
  domain.kill_qemu();
  CHECK(disk.complaint() == "");
  CHECK(backups.complaint({0, 1, 2}) == "");
  CHECK(backups.complaint({0, 3}) == "");
  CHECK(backups.complaint({0, 1, 4, 5}) == "");
}
