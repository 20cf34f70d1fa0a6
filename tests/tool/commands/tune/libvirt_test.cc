#include <nlohmann/json.hpp>

#include "tests/catch_text.h"
#include "tests/libvirt/libvirt_daemon.h"
#include "tests/support/command_line.h"
#include "tests/support/raw_file.h"

using namespace vc;

using nlohmann::json;
using tool_test::run_tool;

TEST_CASE("tune changes a domain of a real libvirtd", "[libvirt]") {
  const tune_test::LibvirtDaemon daemon;
  const std::string image = daemon.folder() + "/disk.qcow2";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", image, "10M"});
  const std::string xml = daemon.folder() + "/web.xml";
  support::write_file(
      xml,
      "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>"
      "<name>web</name><memory unit='MiB'>32</memory>"
      "<os><type arch='x86_64' machine='pc'>hvm</type></os>"
      "<devices><disk type='file' device='disk'>"
      "<driver name='qemu' type='qcow2' cache='writeback'/><source file='" +
          image +
          "'/><target dev='vda' bus='virtio'/></disk>"
          "<graphics type='vnc' port='-1' passwd='s3cret'/></devices>"
          "<qemu:commandline><qemu:arg value='-name'/><qemu:arg value='x,debug-threads=on'/>"
          "</qemu:commandline></domain>");
  daemon.hand_over();
  daemon.virsh({"define", xml});
  const auto definition = [&] {
    return daemon.virsh({"dumpxml", "--inactive", "--security-info", "web"});
  };
  const std::string before = definition();

  const auto shown = run_tool({"tune", "--connect", daemon.uri(), "web"});
  INFO(shown.describe());
  REQUIRE(shown.ok());
  CHECK_THAT(shown.out,
             Catch::Contains("\n-      <driver name='qemu' type='qcow2' cache='writeback'/>\n") &&
                 Catch::Contains("Nothing was changed: use --apply to make the changes."));
  CHECK_THAT(shown.out + shown.err, !Catch::Contains("s3cret"));
  CHECK(definition() == before);

  daemon.virsh({"start", "web"});
  const auto applied =
      run_tool({"tune", "--apply", "--output=json", "--connect", daemon.uri(), "web"});
  INFO(applied.describe());
  REQUIRE(applied.ok());
  CHECK_THAT(applied.out + applied.err, !Catch::Contains("s3cret"));
  const json report = json::parse(applied.out);
  CHECK(report["applied"] == true);
  CHECK(report["running"] == true);
  CHECK_THAT(report["notes"][0].get<std::string>(), Catch::Contains("shut down and started again"));
  // The running domain, and all other parts of the definition with the password, are unchanged.
  CHECK_THAT(daemon.virsh({"dumpxml", "web"}), Catch::Contains("cache='writeback'"));
  std::string expected = before;
  const std::string old = "cache='writeback'";
  expected.replace(expected.find(old), old.size(),
                   "cache='none' io='native' discard='unmap' detect_zeroes='unmap'");
  CHECK(definition() == expected);
  CHECK_THAT(definition(), Catch::Contains("s3cret") && Catch::Contains("debug-threads=on"));

  // QEMU starts with it, if the filesystem supports it.
  daemon.virsh({"destroy", "web"});
  if (applied.err.find("O_DIRECT") == std::string::npos) {
    daemon.virsh({"start", "web"});
    CHECK_THAT(daemon.virsh({"dumpxml", "web"}), Catch::Contains("discard='unmap'"));
    daemon.virsh({"destroy", "web"});
  }
  const auto again = run_tool({"tune", "--apply", "-c", daemon.uri(), "web"});
  CHECK(again.ok());
  CHECK_THAT(again.out, Catch::StartsWith("vda " + image + ": has the right settings\n"));

  // Finds a domain by its UUID, and a transient one.
  std::string uuid = daemon.virsh({"domuuid", "web"});
  uuid.resize(uuid.find('\n'));
  CHECK(run_tool({"tune", "-c", daemon.uri(), uuid}).ok());
  daemon.virsh({"undefine", "web"});
  daemon.virsh({"create", xml});
  const auto transient = run_tool({"tune", "--apply", "-c", daemon.uri(), "web"});
  CHECK(transient.exit_code == 1);
  CHECK_THAT(transient.err, Catch::Contains("is transient"));
  daemon.virsh({"destroy", "web"});
}

TEST_CASE("tune looks for a domain in libvirt's default connection if there is no such file",
          "[libvirt]") {
  support::RunOptions options;
  options.environment = {"LIBVIRT_DEFAULT_URI=test:///default"};
  const auto outcome = run_tool({"tune", "test"}, options);
  INFO(outcome.describe());
  CHECK(outcome.ok());
  CHECK_THAT(outcome.out,
             Catch::Contains("domain 'test' of test:///default: has no disk that is qcow2"));
  CHECK_THAT(run_tool({"tune", "nobody"}, options).err,
             Catch::Contains("there is no file 'nobody'; as a domain: domain 'nobody'"));
}
