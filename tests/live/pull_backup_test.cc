// The disk of a running guest as the source of a copy, through a backup in pull mode.
#include <fmt/format.h>

#include "tests/catch_text.h"
#include "tests/live/written_disk.h"
#include "tests/support/command_line.h"
#include "tests/support/raw_file.h"

using namespace vc;

using live_test::TestDomain;
using live_test::WrittenDisks;
using support::run_ok;

TEST_CASE("a pull backup is copied as the disk was at its start", "[live]") {
  const tune_test::LibvirtDaemon daemon;
  WrittenDisks disk(daemon);
  const TestDomain& domain = disk.domain();
  disk.write_some();
  const std::string at_start = daemon.folder() + "/at-start";
  run_ok({"cp", disk.reference(), at_start});
  const std::string socket = daemon.folder() + "/backup.sock";
  const std::string xml = daemon.folder() + "/backup.xml";
  support::write_file(
      xml, fmt::format("<domainbackup mode='pull'><server transport='unix' socket='{}'/><disks>"
                       "<disk name='vda' type='file'><scratch file='{}/scratch.qcow2'/></disk>"
                       "</disks></domainbackup>",
                       socket, daemon.folder()));
  daemon.hand_over();
  daemon.virsh({"backup-begin", "web", xml});
  // What the guest writes from here on is not in the copy.
  disk.write_some();
  // A run of --live would end the backup.
  const auto refused = domain.tool({"optimize", "--live", "web"});
  CHECK(refused.exit_code == 1);
  CHECK_THAT(refused.err, Catch::Contains("a migration, a save or a backup is under way"));
  const std::string copy = daemon.folder() + "/copy.qcow2";
  const auto copied =
      tool_test::run_tool({"copy", "-c", "--verify", "nbd+unix:///vda?socket=" + socket, copy});
  INFO(copied.describe());
  CHECK(copied.ok());
  disk.write_some();
  daemon.virsh({"domjobabort", "web"});
  CHECK(support::run({"qemu-img", "check", copy}).ok());
  const auto same =
      support::run({"qemu-img", "compare", "-f", "qcow2", "-F", "raw", copy, at_start});
  INFO(same.describe());
  CHECK(same.ok());
  // The guest has gone on.
  domain.kill_qemu();
  CHECK(disk.complaint() == "");
  CHECK(support::run({"qemu-img", "compare", "-F", "raw", "-f", "raw", at_start, disk.reference()})
            .exit_code == 1);
}
