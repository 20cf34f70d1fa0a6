// Tests virt-compact nightly with a libvirtd of its own, and with disks without guests.
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <thread>

#include "tests/catch_text.h"
#include "tests/libvirt/libvirt_daemon.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"

using namespace vc;

using Catch::Contains;
using nlohmann::json;
using support::Outcome;
using support::run_ok;
using tool_test::run_tool;

namespace fs = std::filesystem;

namespace {

std::string text_of(const std::string& path) {
  const auto bytes = support::read_file(path);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Half of the disk is zeros that it stores, or none of it.
enum class Content { kZeros, kCompact };

void make_disk(const std::string& path, Content content = Content::kZeros,
               unsigned mebibytes = 16) {
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", path, fmt::format("{}M", mebibytes)});
  std::vector<std::string> command{"qemu-io", "-f", "qcow2"};
  for (unsigned i = 0; i < mebibytes; ++i) {
    const bool zeros = i % 2 == 1;
    if (zeros && content == Content::kCompact) continue;
    command.emplace_back("-c");
    command.push_back(fmt::format("write -q -P {} {}M 1M", zeros ? 0 : i + 1, i));
  }
  command.push_back(path);
  run_ok(command);
}

// A host: a libvirtd, a folder of disks, and a policy.
class Host {
 public:
  Host() {
    fs::create_directory(disks());
    fs::permissions(disks(), fs::perms(0755));
  }

  std::string disks() const { return daemon_.folder() + "/disks"; }
  std::string disk(const std::string& name) const { return disks() + "/" + name; }
  std::string state() const { return daemon_.folder() + "/state"; }
  std::string policy() const { return daemon_.folder() + "/policy.toml"; }
  const tune_test::LibvirtDaemon& daemon() const { return daemon_; }

  // Defines a domain with the disk NAME.
  void define(const std::string& name, const std::string& file = "") const {
    const std::string xml = daemon_.folder() + "/" + name + ".xml";
    support::write_file(
        xml, fmt::format("<domain type='qemu'><name>{}</name><memory unit='MiB'>32</memory>"
                         "<os><type arch='x86_64' machine='pc'>hvm</type></os>"
                         "<devices><disk type='file' device='disk'>"
                         "<driver name='qemu' type='qcow2'/><source file='{}'/>"
                         "<target dev='vda' bus='virtio'/></disk></devices></domain>",
                         name, disk(file.empty() ? name : file)));
    // The policy and the state folder stay those of the user of the test.
    if (::geteuid() == 0) run_ok({"chown", "-R", "65534:65534", disks(), xml});
    daemon_.virsh({"define", xml});
  }

  // Writes the policy. `top` and `rule` are more lines.
  void set_policy(const std::string& top, const std::string& rules) const {
    const char* const trim = top.find("trim") == std::string::npos ? "trim = \"none\"\n" : "";
    support::write_file(policy(), fmt::format("connect = \"{}\"\nstate = \"{}\"\n{}{}\n{}\n",
                                              daemon_.uri(), state(), trim, top, rules));
    if (::chmod(policy().c_str(), 0644) != 0) throw std::runtime_error("chmod");
  }

  Outcome night(std::vector<std::string> more = {}, const std::string& zone = "UTC") const {
    std::vector<std::string> words{"nightly", "--policy", policy()};
    words.insert(words.end(), more.begin(), more.end());
    support::RunOptions options;
    options.environment = {"TZ=" + zone};
    return run_tool(words, options);
  }

  // Runs a night, which must have the exit code, and returns its report.
  json report(std::vector<std::string> more = {}, int exit_code = 0,
              const std::string& zone = "UTC") const {
    more.emplace_back("--json");
    const auto done = night(more, zone);
    INFO(done.describe());
    REQUIRE(done.exit_code == exit_code);
    return json::parse(done.out);
  }

  // Changes what the state folder knows of the disk.
  void change_result(const std::string& name, const std::function<void(json&)>& change) const {
    const std::string path = state() + "/last-results.json";
    json results = json::parse(text_of(path));
    change(results["disks"][disk(name)]);
    support::write_file(path, results.dump());
  }

 private:
  tune_test::LibvirtDaemon daemon_;
};

constexpr const char* kAll = "[[domain]]\nname = \"*\"";

const json& find(const json& report, const std::string& path) {
  for (const json& it : report["disks"])
    if (it.value("disk", "") == path) return it;
  throw std::runtime_error("not in the report: " + path + "\n" + report.dump(2));
}

std::string outcome(const json& report, const std::string& path) {
  const json& it = find(report, path);
  return it["outcome"].get<std::string>() + (it.contains("why") ? " " + it.value("why", "") : "");
}

void wait_until(const std::function<bool()>& is_done) {
  for (int i = 0; i < 6000; ++i) {
    if (is_done()) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  throw std::runtime_error("waited for too long");
}

// Appends data to a disk, as its guest would.
void write_more(const std::string& disk) {
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 0 1M 8M", disk});
}

}  // namespace

TEST_CASE("a night optimizes what gains enough, and leaves the rest", "[nightly]") {
  const Host host;
  make_disk(host.disk("big"));
  make_disk(host.disk("compact"), Content::kCompact);
  make_disk(host.disk("excluded"));
  make_disk(host.disk("alone"));
  make_disk(host.disk("base"));
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", host.disk("base"),
          host.disk("overlay")});
  for (const char* const name : {"big", "compact", "excluded", "overlay", "missing"})
    host.define(name);
  const auto old = support::read_file(host.disk("big"));
  host.set_policy("", fmt::format("[[domain]]\nname = \"*\"\nexcept = \"excl*\"\n"
                                  "[[disk]]\npath = \"{}\"\nbackup = false",
                                  host.disk("alone")));

  const json dry = host.report({"--dry-run"}, 1);
  CHECK(dry["dry-run"] == true);
  CHECK(outcome(dry, host.disk("big")) == "expected");
  CHECK(outcome(dry, host.disk("compact")) == "skipped gain");
  CHECK_FALSE(fs::exists(host.state()));
  CHECK((support::read_file(host.disk("big")) == old));

  const std::string metrics = host.daemon().folder() + "/night.prom";
  const json done = host.report({"--metrics", metrics}, 1);
  CHECK(done["disks"].size() == 5);
  const json& big = find(done, host.disk("big"));
  CHECK(big["outcome"] == "optimized");
  CHECK(big["domain"] == "big");
  CHECK(big["target"] == "vda");
  CHECK(big["after"] < big["before"]);
  CHECK(big["backup"] == host.disk("big.bak"));
  CHECK(big["report"]["after"]["actual-size"] == big["after"]);
  CHECK_FALSE(big.contains("last-success"));
  CHECK((support::read_file(host.disk("big.bak")) == old));
  run_ok({"qemu-img", "check", "-q", host.disk("big")});
  run_ok({"qemu-img", "compare", "-q", host.disk("big"), host.disk("big.bak")});
  CHECK(outcome(done, host.disk("compact")) == "skipped gain");
  CHECK_THAT(find(done, host.disk("compact"))["text"].get<std::string>(),
             Contains("and 10% are wanted"));
  CHECK_FALSE(fs::exists(host.disk("compact.bak")));
  CHECK(outcome(done, host.disk("alone")) == "optimized");
  CHECK_FALSE(fs::exists(host.disk("alone.bak")));
  CHECK(outcome(done, host.disk("overlay")) == "skipped overlay");
  // A disk that fails does not stop the others.
  CHECK(outcome(done, host.disk("missing")) == "failed");
  CHECK_FALSE(fs::exists(host.disk("excluded.bak")));
  CHECK(done["optimized"] == 2);
  CHECK(done["skipped"] == 2);
  CHECK(done["failed"] == 1);
  CHECK(done["saved"] >= 14 << 20);

  const std::string figures = text_of(metrics);
  const auto figure = [&](const std::string& metric, const std::string& disk) {
    const std::string series = fmt::format(
        "virt_compact_last_run_{}{{command=\"nightly\",disk=\"{}\"}} ", metric, host.disk(disk));
    const size_t at = figures.find(series);
    if (at == std::string::npos) throw std::runtime_error("no " + series);
    return std::stoull(figures.substr(at + series.size()));
  };
  CHECK(figure("changed", "big") == 1);
  CHECK(figure("success", "big") == 1);
  CHECK(figure("after_bytes", "big") == big["after"]);
  CHECK(figure("before_bytes", "big") == big["before"]);
  CHECK(figure("changed", "compact") == 0);
  CHECK(figure("success", "compact") == 1);
  CHECK(figure("success", "missing") == 0);

  // The next night is too soon. After that, disks that have not changed are not read.
  const json soon = host.report({}, 1);
  CHECK(outcome(soon, host.disk("big")) == "skipped not-due");
  CHECK(outcome(soon, host.disk("compact")) == "skipped not-due");
  CHECK(outcome(soon, host.disk("missing")) == "failed");
  CHECK(find(soon, host.disk("big"))["last-outcome"] == "optimized");
  CHECK(find(soon, host.disk("big"))["last-success"].get<int64_t>() > 0);
  const json now = host.report({"--now"}, 1);
  CHECK(outcome(now, host.disk("big")) == "skipped unchanged");
  CHECK(outcome(now, host.disk("compact")) == "skipped unchanged");

  // The tests' policy does not trim; with another one, the content of the overlay would change.
  host.set_policy("trim = \"metadata\"", fmt::format("[[disk]]\npath = \"{}\"", host.disk("base")));
  CHECK(outcome(host.report({"--dry-run"}), host.disk("base")) == "skipped base");
  const support::TempDirectory elsewhere;
  make_disk(elsewhere / "lower");
  const auto paths = [&](const std::string& more) {
    return fmt::format("[[disk]]\npath = [\"{}\"{}]", elsewhere / "lower", more);
  };
  const support::TempDirectory folder;
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", elsewhere / "lower",
          folder / "upper"});
  host.set_policy("trim = \"metadata\"\nkeep_going = true", paths(""));
  CHECK(outcome(host.report({"--dry-run"}), elsewhere / "lower") == "expected");
  host.set_policy("trim = \"metadata\"", paths(", \"" + folder / "*" + "\""));
  CHECK(outcome(host.report({"--dry-run"}), elsewhere / "lower") == "skipped base");
}

TEST_CASE("a disk is due again after some days, if its guest has written", "[nightly]") {
  const Host host;
  make_disk(host.disk("web"));
  host.define("web");
  host.set_policy("every_days = 2\nbackup_days = 5", kAll);
  const std::string disk = host.disk("web");
  CHECK(outcome(host.report(), disk) == "optimized");
  write_more(disk);
  const auto passed = [&](double days) {
    host.change_result("web", [&](json& it) {
      const auto seconds = static_cast<int64_t>(days * 86400);
      it["success"] = it["success"].get<int64_t>() - seconds;
      if (it.contains("backup"))
        it["backup"]["time"] = it["backup"]["time"].get<int64_t>() - seconds;
    });
  };
  passed(1.4);
  CHECK(outcome(host.report(), disk) == "skipped not-due");
  passed(0.2);
  // The old disk is younger than five days.
  CHECK(outcome(host.report(), disk) == "skipped backup");
  CHECK(fs::exists(disk + ".bak"));
  passed(3.5);
  // An old disk that somebody has changed stays.
  const auto written = fs::last_write_time(disk + ".bak");
  fs::last_write_time(disk + ".bak", written + std::chrono::seconds(1));
  CHECK(outcome(host.report(), disk) == "skipped backup");
  fs::last_write_time(disk + ".bak", written);
  // In a dry run, it stays.
  const json dry = host.report({"--dry-run"});
  CHECK(outcome(dry, disk) == "expected");
  CHECK(find(dry, disk)["removed-backup"] == disk + ".bak");
  CHECK_THAT(host.night({"--dry-run"}).out, Contains("would remove the old disk " + disk + ".bak"));
  CHECK(fs::exists(disk + ".bak"));
  const json again = host.report();
  CHECK(outcome(again, disk) == "optimized");
  CHECK(find(again, disk)["removed-backup"] == disk + ".bak");
  CHECK(find(again, disk)["backup"] == disk + ".bak");
  run_ok({"qemu-img", "compare", "-q", disk, disk + ".bak"});

  // A file that another program has put there stays, whatever its age.
  passed(9);
  fs::rename(disk + ".bak", disk + ".other");
  fs::copy_file(disk + ".other", disk + ".bak");
  write_more(disk);
  CHECK(outcome(host.report(), disk) == "skipped backup");
  CHECK(fs::exists(disk + ".bak"));

  // Other settings are another question.
  fs::remove(disk + ".bak");
  CHECK(outcome(host.report(), disk) == "optimized");
  fs::remove(disk + ".bak");
  CHECK(outcome(host.report({"--now"}), disk) == "skipped unchanged");
  host.set_policy("every_days = 2\nminimum_gain = \"5%\"", kAll);
  CHECK(outcome(host.report({"--now"}), disk) == "skipped gain");
}

TEST_CASE("an old disk that something needs is not removed", "[nightly]") {
  const Host host;
  make_disk(host.disk("web"));
  host.define("web");
  host.set_policy("every_days = 0\nbackup_days = 0", kAll);
  const std::string disk = host.disk("web");
  CHECK(outcome(host.report(), disk) == "optimized");
  write_more(disk);
  SECTION("an image has it as backing file") {
    run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", disk + ".bak",
            host.disk("overlay")});
  }
  SECTION("a domain has it, and runs") {
    fs::copy_file(disk, host.disk("copy"));
    host.define("other", "web.bak");
    host.daemon().virsh({"start", "other"});
    CHECK(outcome(host.report(), disk + ".bak") == "skipped runs");
  }
  SECTION("the disk itself is damaged") {
    support::write_file(disk, std::string("damaged"));
    const auto done = host.night();
    INFO(done.describe());
    CHECK_THAT(done.err, Contains(": the old disk is kept: ") && Contains("QCOW2"));
  }
  const auto done = host.night();
  INFO(done.describe());
  CHECK_THAT(done.err, Contains(disk + ": the old disk is kept: "));
  CHECK_THAT(done.out, Contains("its old disk " + disk + ".bak exists"));
  CHECK(fs::exists(disk + ".bak"));
}

TEST_CASE("guests that run, are paused or are saved keep their disks", "[nightly]") {
  const Host host;
  for (const char* const name : {"runs", "saved", "live"}) {
    make_disk(host.disk(name));
    host.define(name);
    host.daemon().virsh({"start", name});
  }
  host.define("same", "runs");
  host.daemon().virsh({"managedsave", "saved"});
  host.set_policy("",
                  "[[domain]]\nname = \"live\"\nlive = true\nfstrim = false\n" + std::string(kAll));
  const json done = host.report();
  CHECK(outcome(done, host.disk("runs")) == "skipped runs");
  CHECK(outcome(done, host.disk("saved")) == "skipped runs");
  CHECK_THAT(find(done, host.disk("saved"))["text"].get<std::string>(), Contains("saved state"));
  CHECK(outcome(done, host.disk("live")) == "optimized");
  CHECK(fs::exists(host.disk("live.bak")));
  CHECK_FALSE(fs::exists(host.disk("runs.bak")));
  CHECK_FALSE(fs::exists(host.disk("saved.bak")));
  CHECK_THAT(host.daemon().virsh({"domblklist", "live"}), Contains(host.disk("live") + "\n"));
  size_t twice = 0;
  for (const json& it : done["disks"])
    if (it["domain"] == "same" || it["domain"] == "runs")
      twice += it.value("why", "") == "twice" || it.value("why", "") == "runs" ||
               it.value("why", "") == "in-use";
  CHECK(twice == 2);
  host.daemon().virsh({"suspend", "live"});
  CHECK(outcome(host.report({"--now"}), host.disk("live")) == "skipped runs");
}

TEST_CASE("outside of the time window, no disk is begun", "[nightly]") {
  const Host host;
  make_disk(host.disk("web"));
  host.define("web");
  const time_t now = ::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  const auto hour = [&](int more) { return (parts.tm_hour + more) % 24; };
  host.set_policy(fmt::format("window = \"{:02}:00-{:02}:00\"", hour(2), hour(4)), kAll);
  const auto done = host.night();
  INFO(done.describe());
  CHECK(done.ok());
  CHECK_THAT(done.out, Contains("skipped: it is not in the time window") &&
                           Contains("0 of 1 disks optimized, 1 skipped"));
  CHECK_FALSE(fs::exists(host.disk("web.bak")));
  CHECK(outcome(host.report({"--now"}), host.disk("web")) == "optimized");
}

TEST_CASE("at the end of the time window, a disk is stopped if the policy says so", "[nightly]") {
  const Host host;
  make_disk(host.disk("a"), Content::kZeros, 64);
  make_disk(host.disk("b"));
  host.define("a");
  host.define("b");
  // The end of the window is in about eight seconds, in a zone that differs by seconds.
  const time_t now = ::time(nullptr);
  const long shift = (12 * 3600 - 8) - now % 86400;
  const std::string zone =
      fmt::format("TST{}{:02}:{:02}:{:02}", shift < 0 ? "+" : "-", std::abs(shift) / 3600,
                  std::abs(shift) / 60 % 60, std::abs(shift) % 60);
  host.set_policy("window = \"11:00-12:00\"\nwindow_end = \"stop\"\nrate_limit = \"1M\"", kAll);
  const auto old = support::read_file(host.disk("a"));
  const json done = host.report({}, 0, zone);
  CHECK(outcome(done, host.disk("a")) == "stopped");
  CHECK(find(done, host.disk("a"))["text"] ==
        "at the end of the time window: the disk is unchanged");
  CHECK(outcome(done, host.disk("b")) == "skipped window");
  CHECK((support::read_file(host.disk("a")) == old));
  CHECK(support::list_directory(host.disks()) == std::vector<std::string>{"a", "b"});
}

TEST_CASE("SIGTERM ends a night at a sound point, with the report", "[nightly]") {
  const Host host;
  make_disk(host.disk("a"), Content::kZeros, 64);
  make_disk(host.disk("b"));
  host.define("a");
  host.define("b");
  host.set_policy("rate_limit = \"1M\"", kAll);
  const auto old = support::read_file(host.disk("a"));
  const std::string log = host.daemon().folder() + "/log";
  const std::string metrics = host.daemon().folder() + "/night.prom";
  {
    const support::Child first(
        {tool_test::virt_compact(), "nightly", "--policy", host.policy(), "--metrics", metrics},
        log);
    wait_until([&] { return text_of(log).find("Estimating the size") != std::string::npos; });

    // A second run at the same time is refused.
    const auto second = host.night();
    CHECK(second.exit_code == 1);
    CHECK_THAT(second.err, Contains(host.state() + ": another virt-compact nightly runs"));
    CHECK(host.night({"--dry-run"}).err.find("another virt-compact") == std::string::npos);
    ::kill(first.pid(), SIGTERM);
    wait_until([&] { return text_of(log).find("nightly: ") != std::string::npos; });
  }
  const std::string text = text_of(log);
  INFO(text);
  CHECK_THAT(text, Contains("stopped: by a signal: the disk is unchanged"));
  CHECK_THAT(text, Contains("skipped: the run was stopped before"));
  CHECK_THAT(text, Contains("0 of 2 disks optimized, 1 skipped, 1 stopped"));
  CHECK_THAT(text_of(metrics),
             Contains("success{command=\"nightly\",disk=\"" + host.disk("a") + "\"} 0"));
  CHECK((support::read_file(host.disk("a")) == old));
  CHECK(support::list_directory(host.disks()) == std::vector<std::string>{"a", "b"});
  // The stop is no success: the next night takes the disk again.
  host.set_policy("", kAll);
  CHECK(outcome(host.report(), host.disk("a")) == "optimized");
}

TEST_CASE("a wrong policy, folder or libvirt is an error that says what to do", "[nightly]") {
  const Host host;
  make_disk(host.disk("web"));
  host.define("web");
  const auto refused = [&](const std::string& message) {
    const auto done = host.night();
    INFO(done.describe());
    CHECK(done.exit_code == 1);
    CHECK_THAT(done.err, Contains(message));
    CHECK_FALSE(fs::exists(host.disk("web.bak")));
  };
  host.set_policy("every_day = 1", kAll);
  refused(host.policy() + ":4: 'every_day' is no key");
  CHECK(host.night({"--check"}).exit_code == 1);
  host.set_policy("", kAll);
  CHECK(host.night({"--check"}).ok());
  CHECK(run_tool({"nightly"}).err.find("--policy is missing") != std::string::npos);
  fs::create_directory(host.state());
  fs::permissions(host.state(), fs::perms(0777));
  refused(host.state() + ": other users can change this folder");
  fs::permissions(host.state(), fs::perms(0700));
  support::write_file(host.policy(),
                      fmt::format("state = \"{}\"\nconnect = \"test:///no/such/file\"\n{}\n"
                                  "[[disk]]\npath = \"{}\"\ntrim = \"none\"",
                                  host.state(), kAll, host.disk("web")));
  // Disks by path do not need libvirt.
  const json done = host.report({}, 1);
  CHECK(done["errors"].size() == 1);
  CHECK(outcome(done, host.disk("web")) == "optimized");
}

TEST_CASE("a damaged file of results counts as empty", "[nightly]") {
  const Host host;
  make_disk(host.disk("web"), Content::kCompact);
  host.define("web");
  host.set_policy("", kAll);
  CHECK(outcome(host.report(), host.disk("web")) == "skipped gain");
  const std::string results = host.state() + "/last-results.json";
  for (const char* const text : {"", "{", "[]", "{\"disks\": {\"/x\": {\"time\": \"soon\"}}}"}) {
    CAPTURE(text);
    support::write_file(results, std::string(text));
    const auto done = host.night();
    INFO(done.describe());
    CHECK(done.ok());
    CHECK_THAT(done.err, Contains(results + ": is damaged"));
    CHECK_THAT(done.out, Contains("would gain"));
  }
  CHECK(outcome(host.report(), host.disk("web")) == "skipped not-due");
}
