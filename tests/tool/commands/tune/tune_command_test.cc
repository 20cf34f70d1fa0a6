#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "libvirt/definition_file.h"
#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using nlohmann::json;
using tool_test::run_tool;

namespace {

const std::string kDomain =
    "<domain type='kvm'>\n  <name>web</name>\n  <devices>\n"
    "    <disk type='file' device='disk'>\n"
    "      <driver name='qemu' type='qcow2' cache='writeback'/>\n"
    "      <source file='/nowhere/web.qcow2'/>\n"
    "      <target dev='sda' bus='sata'/>\n"
    "    </disk>\n  </devices>\n</domain>\n";

std::string tuned_domain() {
  std::string text = kDomain;
  const std::string old = "cache='writeback'";
  return text.replace(text.find(old), old.size(),
                      "cache='none' io='native' discard='unmap' detect_zeroes='unmap'");
}

std::string content(const std::string& path) {
  const auto bytes = support::read_file(path);
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

support::RunOptions input(const std::string& text) {
  support::RunOptions options;
  options.input = text;
  return options;
}

}  // namespace

TEST_CASE("control characters of a definition do not reach the terminal", "[tune]") {
  const support::TempDirectory folder;
  const std::string path = folder / "web.xml";
  std::string text = kDomain;
  text.insert(text.find("</name>"), "\u202e\u009b2J");
  support::write_file(path, text);
  CHECK_THAT(run_tool({"tune", path}).out, Catch::Contains("web\u202e\u009b2J</name>\n"));
  const auto shown = tool_test::run_script(
      "script -qec \"\\\"$VIRT_COMPACT\\\" tune \\\"$1\\\"\" /dev/null", {path});
  INFO(shown.describe());
  CHECK(shown.ok());
  CHECK_THAT(shown.out, Catch::Contains("web\\xe2\\x80\\xae\\xc2\\x9b2J</name>"));
}

TEST_CASE("tune shows the changes, and makes none", "[tune]") {
  const support::TempDirectory folder;
  const std::string path = folder / "web.xml";
  support::write_file(path, kDomain);
  for (const std::vector<std::string>& extra :
       std::vector<std::vector<std::string>>{{}, {"--dry-run"}}) {
    std::vector<std::string> arguments = {"tune", path};
    arguments.insert(arguments.end(), extra.begin(), extra.end());
    const auto outcome = run_tool(arguments);
    INFO(outcome.describe());
    CHECK(outcome.ok());
    CHECK_THAT(outcome.out,
               Catch::StartsWith("--- " + path + "\n+++ " + path + "\n@@ -2,7 +2,7 @@\n") &&
                   Catch::Contains("\n-      <driver name='qemu' type='qcow2' cache='writeback'/>\n"
                                   "+      <driver name='qemu' type='qcow2' cache='none'") &&
                   Catch::Contains("sda /nowhere/web.qcow2: would set cache='none' (was "
                                   "'writeback'), io='native'") &&
                   Catch::Contains("sda: advice: bus='sata'") &&
                   Catch::Contains("\nNothing was written: use --apply to write the changes.\n"));
    CHECK(content(path) == kDomain);
  }
  CHECK(run_tool({"tune", "-q", path}).out.empty());
}

TEST_CASE("tune --apply replaces a file, and keeps its mode, owner and links", "[tune]") {
  const support::TempDirectory folder;
  const std::string path = folder / "web.xml";
  support::write_file(path, kDomain);
  REQUIRE(chmod(path.c_str(), 0640) == 0);
  if (geteuid() == 0) REQUIRE(chown(path.c_str(), 12, 34) == 0);
  REQUIRE(symlink("web.xml", (folder / "link.xml").c_str()) == 0);
  const auto outcome = run_tool({"tune", "--apply", folder / "link.xml"});
  INFO(outcome.describe());
  CHECK(outcome.ok());
  CHECK_THAT(outcome.out, Catch::Contains(": set cache='none'") && !Catch::Contains("--apply"));
  CHECK(content(path) == tuned_domain());
  struct stat status {};
  REQUIRE(lstat((folder / "link.xml").c_str(), &status) == 0);
  CHECK(S_ISLNK(status.st_mode));
  REQUIRE(stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 07777) == 0640);
  if (geteuid() == 0) {
    CHECK(status.st_uid == 12);
    CHECK(status.st_gid == 34);
  }
  CHECK(support::list_directory(folder.path()).size() == 2);

  const auto again = run_tool({"tune", "--apply", path});
  CHECK(again.ok());
  CHECK_THAT(again.out, Catch::StartsWith("sda /nowhere/web.qcow2: has the right settings\n"));
  struct stat later {};
  REQUIRE(stat(path.c_str(), &later) == 0);
  CHECK(later.st_ino == status.st_ino);
}

TEST_CASE("a definition that has changed since it was read is not replaced", "[tune]") {
  const support::TempDirectory folder;
  const std::string path = folder / "web.xml";
  support::write_file(path, std::string("somebody's change"));
  REQUIRE_FAILS_WITH(libvirt::replace_definition(path, kDomain, tuned_domain()),
                     "another process has changed the file since it was read: nothing is written");
  CHECK(content(path) == "somebody's change");
  CHECK(support::list_directory(folder.path()).size() == 1);
  REQUIRE_OK(libvirt::replace_definition(path, "somebody's change", tuned_domain()));
  CHECK(content(path) == tuned_domain());
}

TEST_CASE("tune is a filter when it reads standard input", "[tune]") {
  const auto shown = run_tool({"tune", "-"}, input(kDomain));
  CHECK(shown.ok());
  CHECK_THAT(shown.out, Catch::StartsWith("--- domain.xml\n"));
  const auto filtered = run_tool({"tune", "--apply", "-"}, input(kDomain));
  CHECK(filtered.ok());
  CHECK(filtered.out == tuned_domain());
  CHECK_THAT(filtered.err, Catch::Contains("set cache='none'"));
  const auto same = run_tool({"tune", "-q", "--apply", "-"}, input(tuned_domain()));
  CHECK(same.out == tuned_domain());
  CHECK(same.err.empty());
}

TEST_CASE("the JSON report of tune is complete", "[tune]") {
  const auto outcome = run_tool({"tune", "--output=json", "-"}, input(kDomain));
  INFO(outcome.describe());
  REQUIRE(outcome.ok());
  const json report = json::parse(outcome.out);
  CHECK(report["changes"] == 4);
  CHECK(report["applied"] == false);
  REQUIRE(report["disks"].size() == 1);
  const json& disk = report["disks"][0];
  CHECK(disk["target"] == "sda");
  CHECK(disk["line"] == 4);
  CHECK(disk["format"] == "qcow2");
  CHECK(disk["changes"][0] ==
        json({{"attribute", "cache"}, {"from", "writeback"}, {"to", "none"}}));
  CHECK(disk["changes"][1]["from"].is_null());
  CHECK(disk["advice"].size() == 1);
  CHECK_THAT(report["diff"].get<std::string>(), Catch::StartsWith("--- domain.xml\n"));
}

TEST_CASE("tune refuses invalid arguments", "[tune]") {
  const support::TempDirectory folder;
  support::write_file(folder / "bad.xml", std::string("<domain>\n<devices></domain>"));
  support::write_file(folder / "bomb.xml",
                      std::string("<!DOCTYPE d [<!ENTITY a 'x'><!ENTITY b '&a;&a;'>]><domain/>"));
  support::write_file(folder / "good.xml", kDomain);
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{}, "DOMAIN is missing"},
      {{"--guest"}, "DISK is missing"},
      {{"x", "y"}, "unexpected argument 'y'"},
      {{"--guest", "-c", "test:///default", "x"}, "--guest takes disks"},
      {{"--disk=sda", "--disk", "vdb", folder / "good.xml"}, "there is no disk with target 'vdb'"},
      {{"--apply", "--dry-run", "x"}, "exclude each other"},
      {{"--cache=writeback", "x"}, "io='native' needs cache='none' or 'directsync'"},
      {{"--cache=fast", "x"}, "--cache: cache='fast' is not a value that libvirt accepts"},
      {{folder / "bad.xml"}, "bad.xml: line 2: </domain> does not match <devices>"},
      {{folder / "bomb.xml"}, "bomb.xml: line 1: a DOCTYPE is not allowed"},
      {{folder / "none.xml"}, "none.xml: No such file or directory"},
      {{folder.path()}, "is not a regular file"},
      {{"--connect=test:///default", "nobody"},
       "domain 'nobody' of test:///default: Domain not found"},
      {{"--connect=nonsense:///", "x"}, "libvirt: nonsense:///: "},
  };
  for (const auto& [arguments, message] : cases) {
    auto words = arguments;
    words.insert(words.begin(), "tune");
    const auto outcome = run_tool(words);
    INFO(outcome.describe());
    CHECK(outcome.exit_code == 1);
    CHECK_THAT(outcome.err, Catch::Contains(message));
    CHECK(outcome.out.empty());
  }
}

TEST_CASE("disks may be named in the syntax of QEMU", "[tune]") {
  const support::TempDirectory folder;
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", folder / "disk", "1M"});
  // The disk is found. Only then is an appliance needed.
  const auto outcome = tool_test::run_script(
      "LIBGUESTFS_PATH=/nowhere \"$VIRT_COMPACT\" tune --guest \"file:$1\"", {folder / "disk"});
  INFO(outcome.describe());
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err, Catch::Contains("appliance") && !Catch::Contains("No such file"));
}

TEST_CASE("tune refuses cache=none on filesystems without O_DIRECT", "[tune]") {
  const support::TempDirectory folder;
  const std::string image = "/dev/shm/virt-compact-tune-" + std::to_string(getpid());
  support::write_file(image, std::string("x"));
  const bool direct = support::run({"dd", "if=" + image, "of=/dev/null", "iflag=direct"}).ok();
  std::string domain = kDomain;
  domain.replace(domain.find("/nowhere/web.qcow2"), 18, image);
  const auto outcome = run_tool({"tune", "-"}, input(domain));
  CHECK(unlink(image.c_str()) == 0);
  INFO(outcome.describe());
  CHECK((outcome.err.find("its filesystem does not support O_DIRECT") == std::string::npos) ==
        direct);
}
