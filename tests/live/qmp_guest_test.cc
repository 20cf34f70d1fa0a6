// A guest that writes all the time, while its disk is replaced over QMP.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/catch_text.h"
#include "tests/live/hand_qemu.h"
#include "tests/live/live_guest.h"

using namespace vc;

using live_test::GuestFiles;
using live_test::HandQemu;
using live_test::stop_at;

TEST_CASE("a guest goes on writing while its disk is replaced over QMP", "[live][qmp]") {
  const support::TempDirectory folder;
  std::optional<GuestFiles> guest;
  const auto file = [&](const char* name) { return folder / name; };
  HandQemu qemu(
      HandQemu::Style::kDrive,
      {"-m", "192", "-kernel", file("kernel"), "-initrd", file("initrd"), "-append",
       GuestFiles::kernel_arguments(), "-serial", "file:" + file("serial"), "-serial", "null"},
      [&](const std::string& disk) { guest.emplace(folder.path(), disk); });
  guest->work(3);
  for (const char* const step : {"", "copy", "mirror-pivot"}) {
    CAPTURE(step);
    std::filesystem::remove(qemu.disk() + ".bak");
    if (*step == '\0') {
      const auto done = qemu.tool({"optimize", "--live", "--force", "--json", qemu.disk()});
      INFO(done.describe());
      CHECK(done.ok());
      const auto report = nlohmann::json::parse(done.out)["disks"][0];
      CHECK(report["outcome"] == "optimized");
      CHECK(report["write-wait-during"] > 0.0);
    } else {
      auto run = qemu.stopped({"optimize", "--live", "--force", qemu.disk()}, stop_at(step));
      guest->work(2);
      run.kill();
      guest->work(2);
      const auto done = qemu.tool({"optimize", "--resume", qemu.disk()});
      INFO(done.describe());
      CHECK(done.ok());
    }
    guest->work(3);
    CHECK(guest->lines("BAD").empty());
    CHECK(qemu.files() == std::vector<std::string>{"disk.qcow2", "disk.qcow2.bak"});
  }
  qemu.kill();
  CHECK(guest->complaint() == "");
}
