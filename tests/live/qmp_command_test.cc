// optimize --live with a QEMU that was started without libvirt.
#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/catch_text.h"
#include "tests/live/hand_qemu.h"
#include "tests/support/command_line.h"

using namespace vc;

using live_test::HandQemu;
using live_test::kDisk;
using live_test::kDiskAndBackup;
using live_test::stop_at;
using nlohmann::json;
using support::run_ok;
using Style = HandQemu::Style;

namespace fs = std::filesystem;

TEST_CASE("the disk of a QEMU without libvirt is replaced", "[live][qmp]") {
  const auto style = GENERATE(values({Style::kDrive, Style::kBlockdev, Style::kFilter}));
  HandQemu qemu(style);
  qemu.write_some();
  const auto dry = qemu.tool({"optimize", "--live", "--dry-run", qemu.disk()});
  INFO(dry.describe());
  CHECK(dry.ok());
  CHECK_THAT(dry.out, Catch::Contains("Nothing was changed"));
  CHECK(qemu.files() == kDisk);

  // The gain is too small.
  const auto compact =
      qemu.tool({"optimize", "--live", "--minimum-gain=99%", "--json", qemu.disk()});
  INFO(compact.describe());
  CHECK(compact.ok());
  CHECK(json::parse(compact.out)["disks"][0]["outcome"] == "compact");
  CHECK(qemu.files() == kDisk);
  qemu.write_some();

  // A second run finds the nodes of the first one.
  for (unsigned i = 0; i < 2; ++i) {
    const auto nodes = qemu.nodes_of(qemu.disk());
    REQUIRE(!nodes.empty());
    std::vector<std::string> command{"optimize", "--live", "--force", "-c", "--json"};
    if (i == 0 && style != Style::kDrive)
      command.insert(command.end(), {"--node", nodes.front()});
    else
      command.push_back(qemu.disk());
    fs::remove(qemu.disk() + ".bak");
    const auto done = qemu.tool(command);
    INFO(done.describe());
    REQUIRE(done.ok());
    const json report = json::parse(done.out)["disks"][0];
    CHECK(report["outcome"] == "optimized");
    CHECK(report["disk"] == qemu.disk());
    CHECK(report["backup"] == qemu.disk() + ".bak");
    CHECK(report["pauses"] == 2);
    CHECK(report["longest-pause"] > 0.0);
    CHECK(qemu.files() == kDiskAndBackup);
    CHECK(qemu.status() == "running");
    // QEMU knows the file by its name, and no other file of the run.
    const auto now = qemu.nodes_of(qemu.disk());
    const auto node = report["node"].get<std::string>();
    CHECK(std::count(now.begin(), now.end(), node) == 1);
    CHECK(now.size() == 2);
    CHECK(qemu.nodes_of(qemu.disk() + ".bak").empty());
    // No other process gets the disk.
    CHECK(!support::run({"qemu-img", "info", qemu.disk()}).ok());
    qemu.write_some();
  }
  qemu.kill();
  CHECK(qemu.complaint() == "");
  const auto info = json::parse(tool_test::run_tool({"check", "--output=json", qemu.disk()}).out);
  CHECK(info["compressed-clusters"] > 0);
}

TEST_CASE("the command of the owner starts a guest with all it has written", "[live][qmp]") {
  HandQemu qemu(Style::kDrive);
  auto run = qemu.stopped({"optimize", "--live", "--force", qemu.disk()}, stop_at("copy"));
  qemu.write_some();
  run.kill();
  qemu.kill();
  CHECK(qemu.complaint() == "");
  qemu.start();
  qemu.write_some();
  const auto without = tool_test::run_tool({"optimize", "--resume", qemu.disk()});
  CHECK(without.exit_code == 1);
  CHECK_THAT(without.err, Catch::Contains("give --qmp SOCKET again"));
  const auto refused = qemu.tool({"optimize", "--live", qemu.disk()});
  CHECK(refused.exit_code == 1);
  const std::string way_out = "optimize --resume --qmp SOCKET " + qemu.disk();
  CHECK_THAT(refused.err,
             Catch::Contains("an earlier run was stopped") && Catch::Contains(way_out));
  // Also the commands that are not told how the run was started.
  for (const char* const option : {"--live", "--dry-run"}) {
    const auto other = tool_test::run_tool({"optimize", option, qemu.disk()});
    CHECK(other.exit_code == 1);
    CHECK_THAT(other.err, Catch::Contains(way_out));
  }
  const auto done = qemu.tool({"optimize", "--resume", qemu.disk()});
  INFO(done.describe());
  CHECK(done.ok());
  CHECK(qemu.files() == kDiskAndBackup);
  qemu.write_some();
  qemu.kill();
  CHECK(qemu.complaint() == "");
}

TEST_CASE("internal snapshots are kept over QMP", "[live][qmp]") {
  const auto style = GENERATE(values({Style::kDrive, Style::kBlockdev}));
  HandQemu qemu(style);
  const auto monitor = [&](const std::string& line) {
    return qemu.execute("human-monitor-command", {{"command-line", line}}).get<std::string>();
  };
  const auto names = [&] {
    return json::parse(run_ok({"qemu-img", "info", "-U", "--output=json", qemu.disk()}).out)
        .value("snapshots", json::array())
        .size();
  };
  const std::string at_snapshot = qemu.folder() + "/at-snapshot";
  run_ok({"cp", qemu.reference(), at_snapshot});
  CHECK(monitor("savevm first") == "");
  qemu.write_some();
  CHECK(monitor("savevm second") == "");
  qemu.write_some();
  const auto done = qemu.tool({"optimize", "--live", "--force", qemu.disk()});
  INFO(done.describe());
  REQUIRE(done.ok());
  CHECK(names() == 2);
  qemu.write_some();

  // One that is made during a run would be lost with the overlay.
  fs::remove(qemu.disk() + ".bak");
  const std::vector<std::string> command{"optimize", "--live", "--force", "--drop-snapshots=second",
                                         qemu.disk()};
  {
    auto run = qemu.stopped(command, stop_at("copy"));
    CHECK(monitor("savevm late") == "");
    qemu.write_some();
    run.go_on();
    const std::string text = run.finish();
    INFO(text);
    CHECK_THAT(text, Catch::Contains("has 1 internal snapshot that was made during the run") &&
                         Catch::Contains("--resume"));
  }
  CHECK(qemu.status() == "running");
  const auto back = qemu.tool({"rollback", qemu.disk()});
  CHECK(back.exit_code == 1);
  CHECK_THAT(back.err, Catch::Contains("would be lost"));
  CHECK(monitor("delvm late") == "");
  const auto resumed = qemu.tool({"optimize", "--resume", qemu.disk()});
  INFO(resumed.describe());
  CHECK(resumed.ok());
  CHECK(qemu.files() == kDiskAndBackup);
  qemu.write_some();

  // The guest goes back, with its memory.
  CHECK(monitor("loadvm first") == "");
  CHECK(qemu.status() == "running");
  qemu.kill();
  CHECK(support::run({"qemu-img", "check", qemu.disk()}).ok());
  const auto compared =
      support::run({"qemu-img", "compare", "-F", "raw", qemu.disk(), at_snapshot});
  INFO(compared.describe());
  CHECK(compared.ok());
}

TEST_CASE("Ctrl-C undoes a run over QMP, or finishes it once the copy is complete", "[live][qmp]") {
  HandQemu qemu(Style::kBlockdev);
  for (const char* const step : {"overlay", "copy", "mirror"}) {
    CAPTURE(step);
    auto run =
        qemu.stopped({"optimize", "--live", "--force", "--no-backup", qemu.disk()}, stop_at(step));
    qemu.write_some();
    ::kill(run.pid(), SIGINT);
    run.go_on();
    const std::string text = run.finish();
    INFO(text);
    if (step == std::string("mirror"))
      CHECK_THAT(text, Catch::Contains("the run was finished, since its copy was complete"));
    else
      CHECK_THAT(text, Catch::Contains("the guest runs on its disk as before"));
    CHECK(qemu.files() == kDisk);
    CHECK(qemu.status() == "running");
  }
  qemu.write_some();
  qemu.kill();
  CHECK(qemu.complaint() == "");
}

TEST_CASE("a QEMU whose disk cannot be replaced is refused with the reason", "[live][qmp]") {
  HandQemu qemu(Style::kBlockdev, {"-drive", "if=none,id=seed,format=raw,file.driver=null-co"});
  const auto refusal = [&](const std::vector<std::string>& more) {
    std::vector<std::string> command{"optimize", "--live"};
    command.insert(command.end(), more.begin(), more.end());
    const auto refused = qemu.tool(command);
    CHECK(refused.exit_code == 1);
    CHECK(qemu.files() == kDisk);
    return refused.err;
  };
  CHECK_THAT(refusal({"--node", "nothing"}), Catch::Contains("has no node 'nothing'"));
  CHECK_THAT(refusal({"--node", "file0"}), Catch::Contains("its driver is file"));
  CHECK_THAT(refusal({qemu.folder() + "/reference"}), Catch::Contains("has no disk"));
  qemu.execute("stop");
  CHECK_THAT(refusal({qemu.disk()}), Catch::Contains("the guest is paused"));
  qemu.execute("cont");
  qemu.execute("block-dirty-bitmap-add", {{"node", "format0"}, {"name", "backup"}});
  CHECK_THAT(refusal({qemu.disk()}), Catch::Contains("has dirty bitmaps"));
  qemu.execute("block-dirty-bitmap-remove", {{"node", "format0"}, {"name", "backup"}});
  // A job of another program.
  qemu.execute("blockdev-add",
               {{"driver", "null-co"}, {"node-name", "target"}, {"size", 24 << 20}});
  qemu.execute(
      "blockdev-mirror",
      {{"job-id", "other"}, {"device", "format0"}, {"target", "target"}, {"sync", "full"}});
  CHECK_THAT(refusal({qemu.disk()}), Catch::Contains("the job 'other' (mirror) is under way"));
  qemu.execute("block-job-cancel", {{"device", "other"}});
  live_test::wait_until("the job does not end", [&] { return qemu.execute("query-jobs").empty(); });
  fs::create_hard_link(qemu.disk(), qemu.folder() + "/link");
  CHECK_THAT(refusal({qemu.disk()}), Catch::Contains("1 more names (hard links)"));
  fs::remove(qemu.folder() + "/link");
  CHECK_THAT(refusal({"--reserve=1000000G", qemu.disk()}), Catch::Contains("--reserve"));
  qemu.execute("blockdev-add", {{"driver", "raw"},
                                {"node-name", "second"},
                                {"read-only", true},
                                {"file", {{"driver", "file"}, {"filename", qemu.disk()}}}});
  CHECK_THAT(refusal({qemu.disk()}), Catch::Contains("open a second time, as node 'second'"));
  qemu.execute("blockdev-del", {{"node-name", "second"}});
  // An export keeps the old file open: the run is undone.
  qemu.execute("nbd-server-start",
               {{"addr", {{"type", "unix"}, {"data", {{"path", qemu.folder() + "/nbd"}}}}}});
  qemu.execute("blockdev-add", {{"driver", "file"},
                                {"node-name", "exported"},
                                {"read-only", true},
                                {"locking", "off"},
                                {"filename", qemu.disk()}});
  qemu.execute("block-export-add",
               {{"type", "nbd"}, {"id", "export"}, {"node-name", "exported"}, {"name", "disk"}});
  CHECK_THAT(refusal({"--force", qemu.disk()}),
             Catch::Contains("has") && Catch::Contains("still open"));
  CHECK(qemu.status() == "running");
  qemu.execute("nbd-server-stop");
  qemu.write_some();
  qemu.kill();
  CHECK(qemu.complaint() == "");
  const auto nobody = qemu.tool({"optimize", "--live", qemu.disk()});
  CHECK(nobody.exit_code == 1);
  CHECK_THAT(nobody.err, Catch::Contains("no QEMU listens on this socket"));
}

TEST_CASE("options that do not fit --qmp are refused", "[live][qmp]") {
  const auto message = [](const std::vector<std::string>& options) {
    std::vector<std::string> command{"optimize"};
    command.insert(command.end(), options.begin(), options.end());
    const auto refused = tool_test::run_tool(command);
    CHECK(refused.exit_code == 1);
    return refused.err;
  };
  CHECK_THAT(message({"--qmp", "s", "disk"}), Catch::Contains("need --live"));
  CHECK_THAT(message({"--live", "--node", "n"}), Catch::Contains("--node needs --qmp"));
  CHECK_THAT(message({"--live", "--qmp", "s", "--node", "n", "d"}),
             Catch::Contains("takes one disk"));
  CHECK_THAT(message({"--live", "--qmp", "s", "d", "e"}), Catch::Contains("takes one disk"));
  CHECK_THAT(message({"--live", "--qmp", "s", "--connect", "c", "d"}),
             Catch::Contains("exclude each other"));
  CHECK_THAT(message({"--live", "--qmp", "s", "--fstrim", "d"}), Catch::Contains("run fstrim"));
  CHECK_THAT(message({"--live", "--qmp", "s", "-B", "base", "d"}),
             Catch::Contains("optimized offline"));
  CHECK_THAT(message({"--resume", "--qmp", "s", "--node", "n", "d"}),
             Catch::Contains("omit --node"));
  const auto rollback = tool_test::run_tool({"rollback", "--qmp", "s", "--connect", "c", "d"});
  CHECK_THAT(rollback.err, Catch::Contains("exclude each other"));
}
