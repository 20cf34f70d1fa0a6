// Copies with verification, and copies with a rate limit, as a user sees them.

#include <signal.h>
#include <sys/wait.h>

#include <cerrno>
#include <chrono>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/nbd_server.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using nlohmann::json;
using tool_test::run_tool;
using namespace std::chrono_literals;

namespace {

// Makes a disk of 8 MiB with one MiB of data.
void make_disk(const std::string& path) {
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", path, "8M"});
  support::run_ok({"qemu-io", "-c", "write -P 7 5M 1M", "-f", "qcow2", path});
}

}  // namespace

TEST_CASE("a verified copy shows progress of both phases", "[verified_copy]") {
  const support::TempDirectory folder;
  make_disk(folder / "disk.qcow2");
  for (const std::string option : {"--compression=none", "--compression=zstd"}) {
    const auto outcome = run_tool({"copy", "-q", "--verify", "--force", "--progress=json", option,
                                   folder / "disk.qcow2", folder / "small.qcow2"});
    INFO(outcome.describe());
    REQUIRE(outcome.ok());
    std::vector<std::string> phases;
    std::istringstream lines(outcome.err);
    json last;
    for (std::string line; std::getline(lines, line);) {
      json next = json::parse(line);
      if (phases.empty() || phases.back() != next["phase"].get<std::string>()) {
        if (!phases.empty()) CHECK(last["percent"] == 100.0);
        phases.push_back(next["phase"]);
      }
      last = std::move(next);
    }
    CHECK(phases == std::vector<std::string>{"copy", "verify"});
    CHECK(last["percent"] == 100.0);
    CHECK(last["total"] == 8 << 20);
    support::run_ok({"qemu-img", "compare", folder / "disk.qcow2", folder / "small.qcow2"});
  }
}

TEST_CASE("a server that loses data is detected", "[verified_copy]") {
  const support::TempDirectory folder;
  make_disk(folder / "disk.qcow2");
  const auto server = support::NbdServer::nbdkit(
      {"eval", "get_size=echo 8M", "pread=head -c $3 /dev/zero", "pwrite=cat >/dev/null",
       "can_write=exit 0", "can_zero=exit 0", "zero=exit 0", "can_flush=exit 0", "flush=exit 0"});
  const std::vector<std::string> command{"copy", "-q", folder / "disk.qcow2", server.uri()};
  // No error was reported to the copy.
  const auto blind = run_tool(command);
  INFO(blind.describe());
  REQUIRE(blind.ok());
  auto careful = command;
  careful.insert(careful.begin() + 1, "--verify");
  const auto outcome = run_tool(careful);
  INFO(outcome.describe());
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err,
             Catch::Contains(
                 "differs from its source: do not use it; guest bytes 0x500000 to 0x5fffff\n"));
}

TEST_CASE("a limited rate is kept", "[verified_copy]") {
  const support::TempDirectory folder;
  make_disk(folder / "disk.qcow2");
  const auto outcome =
      run_tool({"copy", "-q", "--rate-limit=1M", folder / "disk.qcow2", folder / "small.qcow2"});
  INFO(outcome.describe());
  REQUIRE(outcome.ok());
  // The bytes of a tenth of a second may be sent at once.
  CHECK(outcome.elapsed >= 900ms);
  // Seven of its eight MiB are not read.
  CHECK(outcome.elapsed < 7s);
}

TEST_CASE("a thread that waits for the rate limit can be stopped", "[verified_copy]") {
  const support::TempDirectory folder;
  make_disk(folder / "disk.qcow2");
  support::Child child({tool_test::virt_compact(), "copy", "--rate-limit=100", "--progress=json",
                        folder / "disk.qcow2", folder / "small.qcow2"},
                       folder / "log");
  std::this_thread::sleep_for(300ms);
  REQUIRE(child.running());
  const auto start = std::chrono::steady_clock::now();
  REQUIRE(::kill(child.pid(), SIGINT) == 0);
  siginfo_t info{};
  while (::waitid(P_PID, static_cast<id_t>(child.pid()), &info, WEXITED | WNOWAIT) != 0)
    REQUIRE(errno == EINTR);
  CHECK(info.si_code == CLD_KILLED);
  CHECK(info.si_status == SIGINT);
  CHECK(std::chrono::steady_clock::now() - start < 60s);
}
