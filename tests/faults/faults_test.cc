// Makes every call of each writing command fail, one per run: see faults.cc.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <set>

#include "tests/catch_text.h"
#include "tests/faults/scenarios.h"
#include "tests/support/nbd_server.h"
#include "tests/support/process.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using faults::Fault;
using faults::Scenario;
using support::TempDirectory;

namespace fs = std::filesystem;

namespace {

std::string variable(const char* name) {
  const char* const value = std::getenv(name);
  return value ? value : "";
}

struct Calls {
  std::map<std::string, unsigned> counted;  // by kind
  bool failed = false;                      // the fault has happened
  unsigned afterwards = 0;                  // calls after the fault
};

Calls read_report(const std::string& path) {
  Calls calls;
  std::ifstream report(path);
  std::string line;
  while (std::getline(report, line)) {
    ++calls.counted[line.substr(0, line.find(' '))];
    if (calls.failed) ++calls.afterwards;
    if (line.ends_with(" failed")) calls.failed = true;
  }
  return calls;
}

// Runs the scenario in a fresh copy of its folder, and judges the result.
Calls run_once(const Scenario& scenario, const std::string& prepared, const Fault& fault) {
  const TempDirectory where;
  const std::string folder = where / "work";
  fs::copy(prepared, folder);
  const std::string report = where / "report";
  support::RunOptions how;
  how.directory = folder;
  how.environment = {"LD_PRELOAD=" + variable("VIRT_COMPACT_FAULTS"),
                     "VIRT_COMPACT_FAULT_FOLDER=" + folder, "VIRT_COMPACT_FAULT_REPORT=" + report,
                     "ASAN_OPTIONS=verify_asan_link_order=0"};
  if (fault.number > 0)
    how.environment.push_back(
        fmt::format("VIRT_COMPACT_FAULT={}:{}:{}", fault.kind, fault.number, fault.errnum));
  const auto outcome = support::run(scenario.command, how);
  const Calls calls = read_report(report);
  INFO(outcome.describe());
  faults::judge(scenario, outcome, folder, prepared, fault, calls.failed);
  return calls;
}

// Returns which of `count` calls fail: all, or some calls that are far apart and the last ones,
// after the command has taken effect.
std::set<unsigned> chosen(unsigned count, bool all) {
  std::set<unsigned> numbers;
  const unsigned step = all ? 1 : std::max(1U, count / 2);
  for (unsigned i = 1; i <= count; i += step) numbers.insert(i);
  for (unsigned i = count; i > 0 && i + 2 > count; --i) numbers.insert(i);
  return numbers;
}

void run_all(const Scenario& scenario, bool all) {
  const TempDirectory folder;
  const std::string prepared = folder / "prepared";
  fs::create_directory(prepared);
  scenario.prepare(prepared);
  INFO(scenario.name);
  const Calls calls = run_once(scenario, prepared, {});
  // Otherwise the library was not loaded.
  REQUIRE(calls.counted.contains("open"));
  std::string line = scenario.name + ":";
  for (const auto& [kind, count] : calls.counted) {
    unsigned failed = 0;
    std::vector<int> errnums{kind == "sync" || kind == "read" ? EIO : ENOSPC};
    if (kind == "open" || kind == "link" || kind == "rename") errnums = {EACCES};
    if (kind == "lock") errnums.clear();  // locks may fail: filesystems without locks are supported
    if (all && (kind == "sync" || kind == "space" || kind == "write")) errnums = {EIO, ENOSPC};
    errnums.push_back(EINTR);
    for (const int errnum : errnums) {
      for (const unsigned number : chosen(count, all)) {
        CAPTURE(kind, number, errnum);
        if (run_once(scenario, prepared, {kind, number, errnum}).failed) ++failed;
      }
    }
    line += fmt::format(" {} {}", kind, failed);
  }
  WARN(line);
}

}  // namespace

TEST_CASE("no failing call harms a disk, and each failure is reported", "[faults]") {
  const bool all = variable("VIRT_COMPACT_FAULTS_ALL") == "1";
  const std::string only = variable("VIRT_COMPACT_FAULTS_ONLY");
  for (const Scenario& scenario : faults::scenarios())
    if (only.empty() || only == scenario.name) run_all(scenario, all);
}

TEST_CASE("compact leaves no leaks when the space or a quota is used up", "[faults]") {
  const bool all = variable("VIRT_COMPACT_FAULTS_ALL") == "1";
  unsigned failed = 0;
  for (const Scenario& scenario : faults::scenarios()) {
    if (!scenario.name.starts_with("compact")) continue;
    const TempDirectory folder;
    const std::string prepared = folder / "prepared";
    fs::create_directory(prepared);
    scenario.prepare(prepared);
    Scenario strict = scenario;
    strict.complaint = [&](const std::string& place) -> std::string {
      const auto check = support::run({"qemu-img", "check", "-q", place + "/disk.qcow2"});
      return check.ok() ? scenario.complaint(place) : check.describe();
    };
    const unsigned writes = run_once(strict, prepared, {}).counted["write"];
    REQUIRE(writes > 0);
    for (const unsigned number : chosen(writes, all))
      for (const int errnum : {ENOSPC, EDQUOT}) {
        CAPTURE(scenario.name, number, errnum);
        if (run_once(strict, prepared, {"write", number, errnum}).failed) ++failed;
      }
  }
  CHECK(failed > 0);
}

TEST_CASE("a thread that cannot be created ends the job, not the process", "[faults]") {
  const TempDirectory where;
  const std::string folder = where / "work";
  fs::create_directory(folder);
  const std::string disk = folder + "/disk.qcow2";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", disk, "8M"});
  support::run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 7 0 8M", disk});
  const std::string program = variable("VIRT_COMPACT");
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"compare", "disk.qcow2", "disk.qcow2"},
                                             {"measure", "-c", "disk.qcow2"},
                                             {"copy", "-c", "--verify", "disk.qcow2", "copy.qcow2"},
                                             {"check", "disk.qcow2"},
                                             {"bench", "-c", "20", "-d", "3", "disk.qcow2"}}) {
    unsigned failures = 0;
    for (unsigned number = 1;; ++number) {
      const std::string report = where / "report";
      fs::remove(report);
      fs::remove(folder + "/copy.qcow2");
      support::RunOptions how;
      how.directory = folder;
      how.environment = {"LD_PRELOAD=" + variable("VIRT_COMPACT_FAULTS"),
                         "VIRT_COMPACT_FAULT_FOLDER=" + folder,
                         "VIRT_COMPACT_FAULT_REPORT=" + report,
                         fmt::format("VIRT_COMPACT_FAULT=thread:{}:{}", number, EAGAIN),
                         "ASAN_OPTIONS=verify_asan_link_order=0"};
      std::vector<std::string> command{program};
      command.insert(command.end(), words.begin(), words.end());
      const auto outcome = support::run(command, how);
      INFO(outcome.describe());
      CHECK(outcome.signal == 0);
      CHECK_FALSE(outcome.timed_out);
      if (!outcome.ok()) {
        CHECK(outcome.err.find("Resource temporarily unavailable") != std::string::npos);
        CHECK(support::list_directory(folder) == std::vector<std::string>{"disk.qcow2"});
      }
      if (!read_report(report).failed) break;
      ++failures;
      REQUIRE(number < 100);
    }
    CAPTURE(words.front());
    // A check of such a small image needs no second thread.
    CHECK((failures > 0 || words.front() == "check"));
  }
}

TEST_CASE("a signal while metadata are read is obeyed, and leaves nothing", "[faults]") {
  const TempDirectory where;
  const std::string folder = where / "work";
  fs::create_directory(folder);
  // Two blocks are read for each of many allocation groups.
  constexpr unsigned kGroups = 400;
  support::run_ok({"truncate", "-s", "100G", folder + "/disk"});
  support::run_ok({"mkfs.xfs", "-q", "-d", fmt::format("agcount={}", kGroups), folder + "/disk"});
  const auto made = fs::last_write_time(folder + "/disk");
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"space", "disk"},
                                             {"trim", "--metadata", "disk"},
                                             {"optimize", "--trim=metadata", "disk"},
                                             {"optimize", "--trim=auto", "disk"},
                                             {"measure", "--skip-free", "disk"},
                                             {"copy", "--skip-free", "disk", "copy"}}) {
    const std::string report = where / "report";
    fs::remove(report);
    support::RunOptions how;
    how.directory = folder;
    how.environment = {"LD_PRELOAD=" + variable("VIRT_COMPACT_FAULTS"),
                       "VIRT_COMPACT_FAULT_FOLDER=" + folder,
                       "VIRT_COMPACT_FAULT_REPORT=" + report,
                       fmt::format("VIRT_COMPACT_FAULT=read:{}:0", kGroups / 2),
                       fmt::format("VIRT_COMPACT_FAULT_SIGNAL={}", SIGTERM),
                       "ASAN_OPTIONS=verify_asan_link_order=0"};
    std::vector<std::string> command{variable("VIRT_COMPACT"), "-q"};
    command.insert(command.end(), words.begin(), words.end());
    const auto outcome = support::run(command, how);
    const Calls calls = read_report(report);
    INFO(outcome.describe());
    CAPTURE(calls.counted.at("read"), calls.afterwards);
    CHECK(outcome.signal == SIGTERM);
    REQUIRE(calls.failed);
    CHECK(calls.afterwards < kGroups / 10);
    CHECK_THAT(outcome.err, Catch::Contains("interrupted"));
    CHECK(support::list_directory(folder) == std::vector<std::string>{"disk"});
    CHECK(fs::last_write_time(folder + "/disk") == made);
  }
}

TEST_CASE("after a failed flush, all later flushes fail", "[faults]") {
  if (support::nbdkit_command().size() > 1) {
    WARN("skipped: the library that fails calls and that of a sanitizer do not go together");
    return;
  }
  const unsigned number = GENERATE(1U, 2U);
  CAPTURE(number);
  const TempDirectory where;
  const std::string folder = where / "work";
  fs::create_directory(folder);
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", folder + "/disk.qcow2", "1M"});
  support::RunOptions how;
  how.directory = folder;
  how.environment = {"LD_PRELOAD=" + variable("VIRT_COMPACT_FAULTS"),
                     "VIRT_COMPACT_FAULT_FOLDER=" + folder,
                     fmt::format("VIRT_COMPACT_FAULT=sync:{}:{}", number, EIO),
                     "ASAN_OPTIONS=verify_asan_link_order=0"};
  const auto outcome = support::run(
      {"nbdkit", "-U", "-", variable("VIRT_COMPACT_PLUGIN"), "file=disk.qcow2", "--run",
       "for it in 1 2 3; do qemu-io -f raw -t none -c 'write -q 0 64k' -c flush \"$uri\" && "
       "echo flushed; done"},
      how);
  INFO(outcome.describe());
  // The kernel reports success for the next flush. Neither a later client nor the end of the server
  // may report success.
  CHECK(outcome.out.find("flushed") == std::string::npos);
  CHECK(outcome.err.find("nbdkit: error: ") != std::string::npos);
}
