// Words that look like options, in the place of an output file.
#include <filesystem>

#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using Catch::Contains;
using support::run_ok;

TEST_CASE("an argument that looks like an option value is not taken as a file name", "[mistaken]") {
  const support::TempDirectory folder;
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", folder / "disk", "1M"});
  run_ok({"qemu-img", "snapshot", "-c", "one", folder / "disk"});
  support::RunOptions here;
  here.directory = folder.path();
  const std::vector<std::vector<std::string>> commands{
      {"copy", "disk"},
      {"flatten", "disk"},
      {"snapshot", "--export", "one", "disk"},
      {"map", "disk", "--svg"},
  };
  const auto run = [&](const std::vector<std::string>& arguments, const std::string& word) {
    std::vector<std::string> command{tool_test::virt_compact()};
    command.insert(command.end(), arguments.begin(), arguments.end());
    command.push_back(word);
    return support::run(command, here);
  };
  for (const auto& command : commands) {
    for (const std::string word : {"cluster_size=1M", "qcow2", "raw", "json"}) {
      const auto outcome = run(command, word);
      INFO(outcome.describe());
      CHECK(outcome.exit_code == 1);
      CHECK_THAT(outcome.err, Contains("'" + word + "' is in the place of"));
      CHECK_FALSE(std::filesystem::exists(folder / word));
    }
    const auto done = run(command, "./json");
    INFO(done.describe());
    CHECK(done.ok());
    CHECK(std::filesystem::remove(folder / "json"));
  }
}
