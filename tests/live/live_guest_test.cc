// A guest that writes all the time, while its disk is replaced.
#include <signal.h>
#include <sys/stat.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/catch_text.h"
#include "tests/live/live_guest.h"
#include "tests/live/pattern.h"
#include "tests/support/command_line.h"
#include "tests/support/raw_file.h"

using namespace vc;

using live_test::kOptimized;
using live_test::kOriginal;
using live_test::LiveGuest;
using live_test::stop_at;
using live_test::TestDomain;
using nlohmann::json;

namespace fs = std::filesystem;

namespace {

uint64_t blocks(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 ? static_cast<uint64_t>(status.st_blocks) * 512 : 0;
}

}  // namespace

TEST_CASE("a guest goes on writing while its disk is replaced", "[live]") {
  const tune_test::LibvirtDaemon daemon;
  const LiveGuest guest(daemon);
  const TestDomain& domain = guest.domain();
  const uint64_t before = blocks(domain.disk());

  // The agent of the guest trims it. The disk is found by its name, too.
  const auto done = domain.tool({"optimize", "--live", "--force", "--json", domain.disk()});
  INFO(done.describe());
  REQUIRE(done.ok());
  const json report = json::parse(done.out)["disks"][0];
  CHECK(report["outcome"] == "optimized");
  CHECK(report["disk"] == domain.disk());
  CHECK(report["target"] == "vda");
  CHECK(report["backup"] == domain.disk() + ".bak");
  CHECK(report["pauses"] == 3);
  CHECK(report["longest-pause"] > 0.0);
  CHECK(report["write-wait-during"] > 0.0);
  CHECK(report["flush-wait-during"] > 0.0);
  CHECK(guest.lines("T").size() == 1);
  CHECK(domain.files() == kOptimized);
  CHECK(domain.source() == domain.disk());
  CHECK(domain.source(0, true) == domain.disk());
  CHECK(blocks(domain.disk()) + live_test::kGarbageBytes / 2 < before);
  guest.work(3);

  // Kills, with a guest that writes meanwhile.
  for (const char* const step :
       {"overlay", "second-overlay-pivot", "copy", "swap", "mirror-pivot"}) {
    CAPTURE(step);
    fs::remove(domain.disk() + ".bak");
    TestDomain::Stopped run(domain, {"optimize", "--live", "--force", "--no-fstrim", "web:vda"},
                            stop_at(step));
    guest.work(2);
    run.kill();
    guest.work(2);
    const auto resumed = step == std::string("copy")
                             ? domain.tool({"rollback", domain.disk()})
                             : domain.tool({"optimize", "--resume", domain.disk()});
    INFO(resumed.describe());
    CHECK(resumed.ok());
    guest.work(2);
    CHECK(guest.lines("BAD").empty());
    CHECK(domain.files() ==
          (step == std::string("copy") || step == std::string("overlay") ? kOriginal : kOptimized));
  }
  guest.shut_down();
  CHECK(guest.complaint() == "");
  CHECK(domain.source(0, true) == domain.disk());
}
