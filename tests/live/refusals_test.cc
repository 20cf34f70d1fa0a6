// Refusals of --live that need an encrypted or transient disk, or another libvirt than this one.
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstdlib>
#include <sstream>
#include <stdexcept>

#include "live/disk_checks.h"
#include "storage/descriptor.h"
#include "tests/catch_text.h"
#include "tests/live/hand_qemu.h"
#include "tests/live/written_disk.h"
#include "tests/support/command_line.h"
#include "tests/support/raw_file.h"

using namespace vc;

using live_test::HandQemu;
using live_test::kOriginal;
using live_test::TestDomain;
using live_test::WrittenDisks;
using support::run_ok;

namespace {

constexpr const char* kSecret = "5c5b4a9e-97a1-4d5c-8c2b-51a9d1f0c9aa";

void make_encrypted(const std::string& disk) {
  const support::TempDirectory folder;
  support::write_file(folder / "key", std::string("word"));
  run_ok({"truncate", "-s", "1M", folder / "plain"});
  const auto made = tool_test::run_tool(
      {"copy", "-f", "raw", "--object", "secret,id=s,file=" + folder / "key", "--options",
       "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", folder / "plain", disk});
  if (!made.ok()) throw std::runtime_error(made.describe());
}

std::string refusal(const TestDomain& domain) {
  const auto refused = domain.tool({"optimize", "--live", "--no-fstrim", domain.name()});
  CHECK(refused.exit_code == 1);
  CHECK(domain.files() == kOriginal);
  return refused.err;
}

Descriptor listening_socket(const std::string& path) {
  Descriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(socket.get(), 1) != 0)
    throw std::runtime_error("no socket: " + path);
  return socket;
}

}  // namespace

TEST_CASE("settings of libvirt turn a lock manager on", "[live]") {
  const auto sets = [](const std::string& text) {
    std::istringstream settings(text);
    return live::sets_lock_manager(settings);
  };
  CHECK(sets("user = \"root\"\nlock_manager = \"lockd\"\n"));
  CHECK(sets("  lock_manager=\"sanlock\""));
  CHECK(sets("lock_manager = unclear"));
  CHECK_FALSE(sets(""));
  CHECK_FALSE(sets("#lock_manager = \"lockd\"\n"));
  CHECK_FALSE(sets("lock_manager = \"nop\"\n"));
}

TEST_CASE("a libvirt that cannot exchange disks is refused with the reason", "[live]") {
  const char* const fake = std::getenv("VIRT_COMPACT_FAKE_LIBVIRT");
  REQUIRE(fake != nullptr);
  const tune_test::LibvirtDaemon daemon;
  const WrittenDisks disk(daemon);
  const auto refused = [&](const std::string& setting) {
    support::RunOptions options;
    options.environment = {std::string("LD_PRELOAD=") + fake, setting};
    const auto done = tool_test::run_tool(
        {"optimize", "--connect", daemon.uri(), "--live", "--no-fstrim", "web"}, options);
    CHECK(done.exit_code == 1);
    CHECK(disk.domain().files() == kOriginal);
    return done.err;
  };
  CHECK_THAT(refused("VIRT_COMPACT_FAKE_VERSION=7010000"),
             Catch::Contains("has libvirt 7.10.0") && Catch::Contains("needs libvirt 8.0.0"));
  CHECK_THAT(refused("VIRT_COMPACT_FAKE_QEMU=6000001"),
             Catch::Contains("QEMU 6.0.1, and --live needs") && Catch::Contains("QEMU 6.1.0"));
  CHECK_THAT(refused("VIRT_COMPACT_FAKE_JOB=1"),
             Catch::Contains("a migration, a save or a backup is under way"));
  const std::string settings = daemon.folder() + "/config/libvirt/qemu.conf";
  support::write_file(settings, std::string("lock_manager = \"lockd\"\n"));
  CHECK_THAT(refused("XDG_CONFIG_HOME=" + daemon.folder() + "/config"),
             Catch::Contains(settings + ": sets lock_manager"));
}

TEST_CASE("encrypted and transient disks of a domain are refused with the reason", "[live]") {
  const tune_test::LibvirtDaemon daemon;
  {
    const std::string secret = daemon.folder() + "/secret.xml";
    support::write_file(secret, fmt::format("<secret ephemeral='yes' private='no'><uuid>{}</uuid>"
                                            "</secret>",
                                            kSecret));
    daemon.hand_over();
    daemon.virsh({"secret-define", secret});
    daemon.virsh({"secret-set-value", kSecret, "--base64", "d29yZA=="});
    TestDomain::Options options;
    options.name = "encrypted";
    options.disk_more = fmt::format(
        "<encryption format='luks'><secret type='passphrase' uuid='{}'/></encryption>", kSecret);
    const TestDomain domain(daemon, options);
    make_encrypted(domain.disk());
    domain.define();
    domain.start();
    CHECK_THAT(refusal(domain), Catch::Contains("is encrypted, and the overlay"));
    daemon.virsh({"destroy", "encrypted"});
  }
  TestDomain::Options options;
  options.name = "transient";
  options.disk_more = "<transient/>";
  const TestDomain domain(daemon, options);
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", domain.disk(), "1M"});
  domain.define();
  domain.start();
  const auto refused = domain.tool({"optimize", "--live", "--no-fstrim", "transient"});
  INFO(refused.describe());
  CHECK(refused.exit_code == 1);
  CHECK_THAT(refused.err, Catch::Contains("is transient: its changes are lost"));
}

TEST_CASE("a migration and an encrypted disk are refused over QMP", "[live][qmp]") {
  const support::TempDirectory folder;
  make_encrypted(folder / "luks.qcow2");
  HandQemu qemu(
      HandQemu::Style::kDrive,
      {"-object", "secret,id=s,data=word", "-drive",
       "if=virtio,id=luks,format=qcow2,encrypt.key-secret=s,file=" + folder / "luks.qcow2"});
  const auto encrypted = qemu.tool({"optimize", "--live", folder / "luks.qcow2"});
  CHECK(encrypted.exit_code == 1);
  CHECK_THAT(encrypted.err, Catch::Contains("is encrypted"));
  // The other side reads nothing, so the migration does not end.
  const Descriptor other_side = listening_socket(folder / "other-side");
  qemu.execute("migrate", {{"uri", "unix:" + folder / "other-side"}});
  const auto migrates = qemu.tool({"optimize", "--live", qemu.disk()});
  CHECK(migrates.exit_code == 1);
  CHECK_THAT(migrates.err, Catch::Contains("a migration is under way"));
  CHECK(qemu.files() == std::vector<std::string>{"disk.qcow2"});
}
