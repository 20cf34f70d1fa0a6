// Sets a guest's timer in a real appliance. Without KVM, this takes a while.
#include <nlohmann/json.hpp>

#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using nlohmann::json;
using tool_test::run_tool;

namespace {

constexpr const char* kWants = "etc/systemd/system/timers.target.wants";

void make_folder(const std::string& path) {
  support::run_ok({"mkdir", "-p", path});
}

// Returns debugfs's information about a path in the filesystem of an image.
std::string stat_in(const std::string& raw, const std::string& path) {
  return support::run_ok({"debugfs", "-R", "stat /" + path, raw}).out;
}

json tune_guest(const std::vector<std::string>& words) {
  std::vector<std::string> arguments = {"tune", "--guest", "--output=json"};
  arguments.insert(arguments.end(), words.begin(), words.end());
  support::RunOptions patient;
  patient.timeout = std::chrono::minutes(15);
  const auto outcome = run_tool(arguments, patient);
  INFO(outcome.describe());
  REQUIRE(outcome.ok());
  return json::parse(outcome.out);
}

}  // namespace

TEST_CASE("fstrim.timer is enabled in a Linux guest that is shut down", "[guest]") {
  const support::TempDirectory folder;
  const std::string tree = folder / "tree";
  for (const char* path : {"/bin", "/etc/systemd/system", "/usr/lib/systemd/system"})
    make_folder(tree + path);
  support::write_file(tree + "/etc/fstab", std::string());
  support::write_file(
      tree + "/etc/os-release",
      std::string("ID=debian\nVERSION_ID=12\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"));
  support::write_file(tree + "/usr/lib/systemd/system/fstrim.timer", std::string("[Timer]\n"));
  const std::string raw = folder / "disk.raw";
  support::run_ok({"mke2fs", "-q", "-t", "ext4", "-d", tree, raw, "64M"});
  const std::string image = folder / "disk.qcow2";
  support::run_ok({"qemu-img", "convert", "-O", "qcow2", raw, image});
  const auto before = support::read_file(image);

  const json shown = tune_guest({image});
  CHECK(shown["applied"] == false);
  REQUIRE(shown["systems"].size() == 1);
  CHECK(shown["systems"][0]["timer"] == "to-be-enabled");
  CHECK(shown["systems"][0]["product"] == "Debian GNU/Linux 12");
  CHECK((support::read_file(image) == before));

  CHECK(tune_guest({"--apply", image})["systems"][0]["timer"] == "enabled");
  support::run_ok({"qemu-img", "check", image});
  support::run_ok({"qemu-img", "convert", "-O", "raw", image, raw});
  CHECK_THAT(stat_in(raw, std::string(kWants) + "/fstrim.timer"),
             Catch::Contains("Fast link dest: \"/usr/lib/systemd/system/fstrim.timer\""));
  CHECK(tune_guest({raw, "-f", "raw"})["systems"][0]["timer"] == "was-enabled");
}
