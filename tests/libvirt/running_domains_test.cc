// Which domain uses a disk. optimize refuses a disk in use.
#include "libvirt/running_domains.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <optional>

#include "libvirt/domain.h"
#include "tests/catch_text.h"
#include "tests/libvirt/libvirt_daemon.h"
#include "tests/support/command_line.h"
#include "tests/support/nbd_server.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using support::run_ok;
using support::TempDirectory;
using tool_test::run_tool;

namespace fs = std::filesystem;

namespace {

// Sets XDG_RUNTIME_DIR while the object lives.
class RuntimeFolder {
 public:
  explicit RuntimeFolder(const std::string& path) {
    if (const char* const it = std::getenv("XDG_RUNTIME_DIR")) before_ = it;
    ::setenv("XDG_RUNTIME_DIR", path.c_str(), 1);
  }
  RuntimeFolder(const RuntimeFolder&) = delete;
  RuntimeFolder& operator=(const RuntimeFolder&) = delete;
  ~RuntimeFolder() {
    if (before_)
      ::setenv("XDG_RUNTIME_DIR", before_->c_str(), 1);
    else
      ::unsetenv("XDG_RUNTIME_DIR");
  }

 private:
  std::optional<std::string> before_;
};

}  // namespace

TEST_CASE("the files of a disk include its backing files", "[libvirt]") {
  const auto domain = libvirt::read_domain(
      "<domain><devices><disk type='file'><source file='/a' index='2'><dataStore type='file'>"
      "<source file='/data'/></dataStore></source>"
      "<backingStore type='file'><format type='qcow2'/><source file='/b'/>"
      "<backingStore type='block'><source dev='/dev/c'/><backingStore/></backingStore>"
      "</backingStore><mirror type='file'><source file='/m'/></mirror>"
      "<other><source file='/nothing'/></other></disk>"
      "<disk type='network'><source protocol='nbd' name='x'/></disk></devices></domain>",
      "text");
  REQUIRE(domain);
  REQUIRE(domain->disks.size() == 2);
  CHECK(domain->disks[0].files == std::vector<std::string>{"/a", "/data", "/b", "/dev/c", "/m"});
  CHECK(domain->disks[1].files.empty());
}

TEST_CASE("optimize refuses a disk of a running domain, under any name", "[libvirt]") {
  const tune_test::LibvirtDaemon daemon;
  const TempDirectory runtime;
  const RuntimeFolder session(runtime.path());
  // libvirt looks for the session's daemon here.
  fs::create_symlink(daemon.folder() + "/run", runtime / "libvirt");
  // The daemon's user must be able to follow the link.
  fs::permissions(runtime.path(), fs::perms(0755));

  const std::string base = daemon.folder() + "/base.qcow2";
  const std::string top = daemon.folder() + "/top.qcow2";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", base, "10M"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 7 1M 1M", base});
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top});
  const std::string xml = daemon.folder() + "/web.xml";
  support::write_file(xml,
                      "<domain type='qemu'><name>web</name><memory unit='MiB'>32</memory>"
                      "<os><type arch='x86_64' machine='pc'>hvm</type></os>"
                      "<devices><disk type='file' device='disk'>"
                      "<driver name='qemu' type='qcow2'/><source file='" +
                          top + "'/><target dev='vda' bus='virtio'/></disk></devices></domain>");
  daemon.hand_over();
  daemon.virsh({"define", xml});
  // A domain that does not run uses no disks.
  CHECK(libvirt::find_disk_use(top)->domain.empty());

  daemon.virsh({"start", "web"});
  const std::string user = "domain 'web' of qemu:///session";
  CHECK(libvirt::find_disk_use(top)->domain == user);
  CHECK(libvirt::find_disk_use(base)->domain == user);
  CHECK(libvirt::find_disk_use(xml)->domain.empty());
  CHECK_FALSE(libvirt::find_disk_use(daemon.folder() + "/none"));
  // QEMU's locks allow all readers of a backing file.
  fs::create_hard_link(base, daemon.folder() + "/other-name.qcow2");
  for (const char* const name : {"/base.qcow2", "/other-name.qcow2", "/top.qcow2"}) {
    CAPTURE(name);
    const auto refused = run_tool({"optimize", "--no-trim", daemon.folder() + name});
    INFO(refused.describe());
    CHECK(refused.exit_code == 1);
    CHECK_THAT(refused.err, Catch::Contains("is used by the running " + user) &&
                                Catch::Contains("shut it down first"));
    CHECK_FALSE(fs::exists(daemon.folder() + name + ".bak"));
  }

  // A saved domain relies on the content of its disk.
  daemon.virsh({"managedsave", "web"});
  CHECK(libvirt::find_disk_use(top)->domain == user);
  CHECK(libvirt::find_disk_use(top)->saved);
  fs::copy_file(top, top + ".old");
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"optimize", "--no-trim", top},
        {"optimize", "--trim=metadata", top},
        {"trim", top},
        {"trim", "--metadata", top},
        {"copy", "--skip-free", top, daemon.folder() + "/copy.qcow2"},
        {"rollback", "--backup=.old", top},
        {"tune", "--guest", "--apply", top}}) {
    const auto refused = run_tool(command);
    INFO(refused.describe());
    CHECK(refused.exit_code == 1);
    CHECK_THAT(refused.err, Catch::Contains("is a disk of " + user + ", which has a saved state"));
  }
  CHECK_FALSE(fs::exists(daemon.folder() + "/copy.qcow2"));
  // Commands that only read print a warning.
  const std::string approximate =
      top + ": is a disk of the saved " + user + ": what is free is approximate";
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"space", top}, {"measure", "--skip-free", top}}) {
    const auto told = run_tool(command);
    INFO(told.describe());
    CHECK(told.ok());
    CHECK_THAT(told.err, Catch::Contains(approximate));
  }
  CHECK_THAT(run_tool({"space", "--json", top}).out, Catch::Contains("\"approximate\": true"));
  // The guest needs the whole disk, so a full copy needs no warning.
  CHECK(run_tool({"copy", "-q", top, daemon.folder() + "/whole.qcow2"}).ok());
  daemon.virsh({"managedsave-remove", "web"});
  const std::string copy = daemon.folder() + "/copy.qcow2";
  CHECK(run_tool({"copy", "-q", "--skip-free", top, copy}).ok());
  const auto done = run_tool({"optimize", "-q", "--no-trim", top});
  INFO(done.describe());
  CHECK(done.ok());
  CHECK(done.err.find("libvirt") == std::string::npos);
}

TEST_CASE("a missing libvirt daemon is no error, and is not started", "[libvirt]") {
  const TempDirectory runtime;
  const RuntimeFolder session(runtime.path());
  fs::create_directory(runtime / "libvirt");
  support::write_file(runtime / "libvirt/libvirt-sock", std::string());
  const std::string disk = runtime / "disk.qcow2";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", disk, "10M"});
  const auto use = libvirt::find_disk_use(disk);
  REQUIRE(use);
  CHECK(use->domain.empty());
  CHECK(use->remarks.empty());
  CHECK(support::list_directory(runtime / "libvirt") == std::vector<std::string>{"libvirt-sock"});
}

TEST_CASE("a libvirt that answers nonsense causes a warning, and the run continues", "[libvirt]") {
  const TempDirectory runtime;
  const RuntimeFolder session(runtime.path());
  fs::create_directory(runtime / "libvirt");
  const std::string socket = runtime / "libvirt/libvirt-sock";
  const support::Child impostor({"nbdkit", "-f", "-U", socket, "memory", "1M"}, runtime / "log");
  support::wait_for_greeting(socket);
  const std::string disk = runtime / "disk.qcow2";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", disk, "10M"});
  const auto done = run_tool({"optimize", "--no-trim", disk});
  INFO(done.describe());
  CHECK(done.ok());
  CHECK_THAT(done.err, Catch::Contains("qemu:///session: cannot get the disks"));
}
