// Compares virt-compact snapshot with qemu-img snapshot.
#include <filesystem>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/catch.h"
#include "tests/support/command_line.h"
#include "tests/support/nbd_server.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using Catch::Contains;
using support::run_ok;
using tool_test::run_tool;

namespace {

std::string new_image(const support::TempDirectory& folder) {
  const std::string path = folder / "disk.qcow2";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", path, "8M"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 4M", path});
  return path;
}

void use(const std::vector<std::string>& arguments) {
  std::vector<std::string> command{"snapshot"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  const auto outcome = run_tool(command);
  INFO(outcome.describe());
  REQUIRE(outcome.ok());
  CHECK(outcome.out.empty());
}

std::string refused(const std::vector<std::string>& arguments) {
  std::vector<std::string> command{"snapshot"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  const auto outcome = run_tool(command);
  INFO(outcome.describe());
  CHECK(outcome.exit_code == 1);
  return outcome.err;
}

// Returns the words of a text, without its columns.
std::vector<std::string> words(const std::string& text) {
  std::istringstream stream(text);
  return {std::istream_iterator<std::string>(stream), {}};
}

bool reads(const std::string& path, const std::string& pattern) {
  return support::run({"qemu-io", "-f", "qcow2", "-c", "read -q -P " + pattern, path}).out.empty();
}

}  // namespace

TEST_CASE("a script for qemu-img works unchanged", "[snapshot]") {
  const support::TempDirectory folder;
  const std::string path = new_image(folder);
  CHECK(run_tool({"snapshot", "-l", path}).out.empty());
  use({"-c", "first", path});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 2 0 4M", path});
  run_ok({"qemu-img", "snapshot", "-c", "a name that is longer than its column", path});
  use({"-q", "-c", "third", path});
  run_ok({"qemu-img", "check", "-q", path});

  const auto theirs = run_ok({"qemu-img", "snapshot", "-l", path}).out;
  const auto ours = run_tool({"snapshot", "-l", path}).out;
  CHECK(run_tool({"snapshot", path}).out == ours);
  // QEMU 10 has different columns.
  if (theirs.find("VM_SIZE") == std::string::npos) CHECK(ours == theirs);
  CHECK(words(ours) == words(tool_test::in_our_words(theirs)));

  const auto json = nlohmann::json::parse(run_tool({"snapshot", "--output=json", path}).out);
  const auto info = nlohmann::json::parse(run_ok({"qemu-img", "info", "--output=json", path}).out);
  REQUIRE(json.size() == 3);
  for (size_t i = 0; i < json.size(); ++i)
    for (const auto& [key, value] : info["snapshots"][i].items()) CHECK(json[i][key] == value);
  CHECK(json[0]["disk-size"] == 8 << 20);

  CHECK(reads(path, "2 0 4M"));
  use({"-a", "first", path});
  CHECK(reads(path, "1 0 4M"));
  use({"-d", "2", path});
  use({"-d", "third", path});
  use({"-d", "first", path});
  CHECK(run_tool({"snapshot", "-l", path}).out.empty());
  run_ok({"qemu-img", "check", "-q", path});
  CHECK(reads(path, "1 0 4M"));
  // Both contents together took 8 MiB.
  CHECK(std::filesystem::file_size(path) < 5 << 20);
}

TEST_CASE("the disk of a snapshot is exported", "[snapshot]") {
  const support::TempDirectory folder;
  const std::string path = new_image(folder);
  use({"-c", "old", path});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 2 0 4M", path});
  use({"-q", "--export", "old", path, folder / "out.qcow2"});
  CHECK(reads(folder / "out.qcow2", "1 0 4M"));
  CHECK_THAT(refused({"--export", "old", path, folder / "out.qcow2"}), Contains("--force"));
  use({"-q", "--force", "--export", "old", path, folder / "out.qcow2"});
}

TEST_CASE("snapshot refuses what it cannot do, with a reason", "[snapshot]") {
  const support::TempDirectory folder;
  const std::string path = new_image(folder);
  CHECK_THAT(refused({}), Contains("DISK is missing"));
  CHECK_THAT(refused({"-l", "-c", "x", path}), Contains("only one of"));
  CHECK_THAT(refused({"-d", "x", path}), Contains("there is no snapshot 'x'"));
  CHECK_THAT(refused({"-a", "x", path}), Contains(path + ": there is no snapshot 'x'"));
  CHECK_THAT(refused({"--export", "x", path}), Contains("DST is missing"));
  CHECK_THAT(refused({"-U", "-c", "x", path}), Contains("cannot be changed"));
  CHECK_THAT(refused({"-c", "x", path, "more"}), Contains("unexpected argument"));
  support::write_file(folder / "raw", std::string(1 << 20, 'x'));
  CHECK_THAT(refused({"-c", "x", folder / "raw"}), Contains("raw file"));
  CHECK(run_tool({"snapshot", "-l", folder / "raw"}).ok());

  // Another process has the image open.
  const std::string socket = folder / "socket";
  const support::Child server({"qemu-nbd", "-f", "qcow2", "-t", "-k", socket, path},
                              folder / "log");
  support::wait_for_greeting(socket);
  CHECK_THAT(refused({"-c", "late", path}), Contains("in use by qemu-nbd"));
  CHECK(run_tool({"snapshot", "-U", "-l", path}).ok());
}
