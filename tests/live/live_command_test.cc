// optimize --live with several disks, refusals, interruptions and low space.
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/catch_text.h"
#include "tests/live/written_disk.h"
#include "tests/support/command_line.h"
#include "tests/support/raw_file.h"

using namespace vc;

using live_test::stop_at;
using live_test::TestDomain;
using live_test::WrittenDisks;
using nlohmann::json;
using support::run_ok;

namespace fs = std::filesystem;

TEST_CASE("the disks of a domain are optimized one after the other", "[live]") {
  const tune_test::LibvirtDaemon daemon;
  WrittenDisks disks(daemon, 2);
  const TestDomain& domain = disks.domain();
  // Nothing changes.
  const auto dry = domain.tool({"optimize", "--live", "--dry-run", "web"});
  INFO(dry.describe());
  CHECK(dry.ok());
  CHECK_THAT(dry.out, Catch::Contains("vda") && Catch::Contains("vdb") &&
                          Catch::Contains("Nothing was changed"));
  const std::vector<std::string> original{"disk0.qcow2", "disk1.qcow2"};
  CHECK(domain.files() == original);

  // A disk that is compact goes back to its file.
  const auto compact =
      domain.tool({"optimize", "--live", "--minimum-gain=99%", "--no-fstrim", "--json", "web:vdb"});
  INFO(compact.describe());
  CHECK(compact.ok());
  CHECK(json::parse(compact.out)["disks"][0]["outcome"] == "compact");
  CHECK(domain.files() == original);

  const auto done =
      domain.tool({"optimize", "--live", "--force", "-c", "--no-backup", "--json", "web:vda,vdb"});
  INFO(done.describe());
  REQUIRE(done.ok());
  // No agent.
  CHECK_THAT(done.err, Catch::Contains("the guest is not trimmed"));
  const json report = json::parse(done.out);
  REQUIRE(report["disks"].size() == 2);
  for (const json& disk : report["disks"]) CHECK(disk["outcome"] == "optimized");
  CHECK(domain.files() == original);
  disks.write_some(0);
  disks.write_some(1);
  domain.kill_qemu();
  CHECK(disks.complaint(0) == "");
  CHECK(disks.complaint(1) == "");
  const auto info =
      json::parse(tool_test::run_tool({"check", "--output=json", domain.disk(1)}).out);
  CHECK(info["compressed-clusters"] > 0);
}

TEST_CASE("Ctrl-C undoes a live run, or finishes it once the copy is complete", "[live]") {
  const tune_test::LibvirtDaemon daemon;
  WrittenDisks disk(daemon);
  const TestDomain& domain = disk.domain();
  for (const char* const step : {"overlay", "second-overlay", "copy", "swap"}) {
    CAPTURE(step);
    disk.write_some();
    TestDomain::Stopped run(domain, {"optimize", "--live", "--force", "--no-backup", "web"},
                            stop_at(step));
    disk.write_some();
    ::kill(run.pid(), SIGINT);
    run.go_on();
    const std::string text = run.finish();
    INFO(text);
    if (step == std::string("swap"))
      CHECK_THAT(text, Catch::Contains("the run was finished, since its copy was complete"));
    else
      CHECK_THAT(text, Catch::Contains("the guest runs on its disk as before"));
    CHECK(domain.files() == std::vector<std::string>{"disk0.qcow2"});
    CHECK(domain.source() == domain.disk());
  }
  disk.write_some();
  domain.kill_qemu();
  CHECK(disk.complaint() == "");
}

TEST_CASE("a live run ends before the storage is full", "[live]") {
  const tune_test::LibvirtDaemon daemon;
  WrittenDisks disk(daemon);
  const TestDomain& domain = disk.domain();
  const auto none = domain.tool({"optimize", "--live", "--reserve=1000000G", "web"});
  INFO(none.describe());
  CHECK(none.exit_code == 1);
  CHECK_THAT(none.err, Catch::Contains("--reserve"));
  CHECK(domain.files() == std::vector<std::string>{"disk0.qcow2"});

  // Other programs may use or free half of this meanwhile.
  constexpr uint64_t kMargin = uint64_t{1} << 30;
  struct statvfs status {};
  REQUIRE(::statvfs(daemon.folder().c_str(), &status) == 0);
  const uint64_t free = uint64_t{status.f_bavail} * status.f_frsize;
  if (free < 4 * kMargin) {
    WARN("too little free space to test its end");
    return;
  }
  TestDomain::Stopped run(
      domain, {"optimize", "--live", "--force", fmt::format("--reserve={}", free - kMargin), "web"},
      stop_at("copy"));
  disk.write_some();
  run_ok({"fallocate", "-l", std::to_string(2 * kMargin), daemon.folder() + "/filler"});
  run.go_on();
  const std::string text = run.finish();
  INFO(text);
  CHECK_THAT(text, Catch::Contains("--reserve") &&
                       Catch::Contains("the guest runs on its disk as before"));
  CHECK(domain.files() == std::vector<std::string>{"disk0.qcow2"});
  fs::remove(daemon.folder() + "/filler");
  disk.write_some();
  domain.kill_qemu();
  CHECK(disk.complaint() == "");
}

TEST_CASE("disks that cannot be optimized live are refused with the reason", "[live]") {
  const tune_test::LibvirtDaemon daemon;
  WrittenDisks disk(daemon);
  const TestDomain& domain = disk.domain();
  const auto refusal = [](const TestDomain& of, const std::vector<std::string>& more) {
    std::vector<std::string> command{"optimize", "--live"};
    command.insert(command.end(), more.begin(), more.end());
    const auto refused = of.tool(command);
    CHECK(refused.exit_code == 1);
    return refused.err;
  };
  CHECK_THAT(refusal(domain, {"nothing"}), Catch::Contains("nothing"));
  CHECK_THAT(refusal(domain, {"web:vdz"}), Catch::Contains("has no disk 'vdz'"));
  CHECK_THAT(refusal(domain, {daemon.folder() + "/web.xml"}),
             Catch::Contains("no running domain has this disk"));
  daemon.virsh({"suspend", "web"});
  CHECK_THAT(refusal(domain, {"web"}), Catch::Contains("is paused: resume it first"));
  daemon.virsh({"resume", "web"});
  fs::create_hard_link(domain.disk(), domain.disk() + ".link");
  CHECK_THAT(refusal(domain, {"web"}), Catch::Contains("1 more names (hard links)"));
  fs::remove(domain.disk() + ".link");
  support::write_file(domain.disk() + ".bak", std::string("x"));
  CHECK_THAT(refusal(domain, {"web"}), Catch::Contains("exists already"));
  fs::remove(domain.disk() + ".bak");
  // A job of another program.
  daemon.virsh({"blockcopy", "web", "vda", daemon.folder() + "/copy", "--transient-job"});
  CHECK_THAT(refusal(domain, {"web"}), Catch::Contains("has a block job (copy)"));
  daemon.virsh({"blockjob", "web", "vda", "--abort"});
  daemon.virsh({"destroy", "web"});
  CHECK_THAT(refusal(domain, {"web"}), Catch::Contains("does not run"));
  run_ok({"qemu-img", "snapshot", "-c", "old", domain.disk()});
  domain.start();
  CHECK(domain.tool({"optimize", "--live", "--drop-snapshots", "--no-fstrim", "web"}).ok());
  CHECK(support::run_ok({"qemu-img", "snapshot", "-U", "-l", domain.disk()}).out.empty());
  daemon.virsh({"destroy", "web"});

  // Disks of other kinds.
  struct Case {
    std::string name;
    std::string driver;
    std::string more;
    std::string expected;
  };
  for (const Case& each : std::vector<Case>{
           {"raw", "type='raw'", "", "its format is raw"},
           {"shared", "type='qcow2' cache='none'", "<shareable/>", "is shared"},
           {"readonly", "type='qcow2'", "<readonly/>", "is read-only"},
       }) {
    CAPTURE(each.name);
    TestDomain::Options options;
    options.name = each.name;
    options.driver = each.driver;
    options.disk_more = each.more;
    // QEMU shares only raw images.
    if (each.name == "shared") options.driver = "type='raw'";
    const TestDomain other(daemon, options);
    run_ok({"qemu-img", "create", "-q", "-f", each.name == "readonly" ? "qcow2" : "raw",
            other.disk(), "1M"});
    other.define();
    other.start();
    const std::string expected = each.name == "shared" ? "its format is raw" : each.expected;
    CHECK_THAT(refusal(other, {each.name}), Catch::Contains(expected));
    daemon.virsh({"destroy", each.name});
  }
}

TEST_CASE("domains and images that a run would harm are refused with the reason", "[live]") {
  const tune_test::LibvirtDaemon daemon;
  const auto refusal = [](const TestDomain& domain, const std::string& target) {
    const auto refused = domain.tool({"optimize", "--live", target});
    CHECK(refused.exit_code == 1);
    return refused.err;
  };
  // Makes and starts a domain whose disk is made with `options` of qemu-img.
  const auto domain_with = [&](const std::string& name, std::vector<std::string> make) {
    TestDomain::Options options;
    options.name = name;
    TestDomain domain(daemon, options);
    make.insert(make.begin(), {"qemu-img", "create", "-q", "-f", "qcow2"});
    make.insert(make.end(), {domain.disk(), "1M"});
    run_ok(make);
    return domain;
  };
  {
    const TestDomain domain = domain_with("transient", {});
    domain.define();
    daemon.virsh({"undefine", "transient"});
    daemon.virsh({"create", daemon.folder() + "/transient.xml"});
    CHECK_THAT(refusal(domain, "transient"), Catch::Contains("is transient"));
    daemon.virsh({"destroy", "transient"});
  }
  {
    const TestDomain domain = domain_with("attached", {});
    domain.define();
    domain.start();
    // A disk that the next start does not have.
    const std::string extra = daemon.folder() + "/attached/extra.qcow2";
    run_ok({"qemu-img", "create", "-q", "-f", "qcow2", extra, "1M"});
    daemon.hand_over();
    daemon.virsh({"attach-disk", "attached", extra, "vdb", "--targetbus", "virtio", "--live",
                  "--subdriver", "qcow2"});
    CHECK_THAT(refusal(domain, "attached:vdb"), Catch::Contains("next start"));
    daemon.virsh({"destroy", "attached"});
  }
  {
    const TestDomain domain =
        domain_with("data-file", {"-o", "data_file=" + daemon.folder() + "/data-file/data.raw"});
    domain.define();
    domain.start();
    CHECK_THAT(refusal(domain, "data-file"), Catch::Contains("data file"));
    daemon.virsh({"destroy", "data-file"});
  }
}

TEST_CASE("options that do not fit --live are refused", "[live]") {
  const auto message = [](const std::vector<std::string>& options) {
    std::vector<std::string> command{"optimize"};
    command.insert(command.end(), options.begin(), options.end());
    const auto refused = tool_test::run_tool(command);
    CHECK(refused.exit_code == 1);
    return refused.err;
  };
  CHECK_THAT(message({"--live", "-o", "out", "web"}), Catch::Contains("takes no --output"));
  CHECK_THAT(message({"--live", "--repair", "web"}), Catch::Contains("cannot be repaired"));
  CHECK_THAT(message({"--live", "--no-trim", "web"}), Catch::Contains("the agent of the guest"));
  CHECK_THAT(message({"--live", "--drop=pagefile", "web"}),
             Catch::Contains("the agent of the guest"));
  CHECK_THAT(message({"--live", "-f", "raw", "web"}), Catch::Contains("needs a QCOW2 disk"));
  CHECK_THAT(message({"--live", "--decrypt", "web"}), Catch::Contains("cannot move to an image"));
  CHECK_THAT(message({"--live", "--resume", "disk"}), Catch::Contains("exclude each other"));
  CHECK_THAT(message({"--resume", "a", "b"}), Catch::Contains("takes one DISK"));
  CHECK_THAT(message({"--resume", "--dry-run", "a"}), Catch::Contains("exclude each other"));
  CHECK_THAT(message({"--no-fstrim", "disk"}), Catch::Contains("need --live"));
  CHECK_THAT(message({"--reserve=1G", "disk"}), Catch::Contains("need --live"));
  CHECK_THAT(message({"--connect", "x:///", "disk"}), Catch::Contains("need --live"));
}
