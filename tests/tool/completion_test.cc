#include "tests/catch_text.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"
#include "tests/tool/command_line.h"

namespace {

// What bash offers for the last of `words`, one a line.
std::string complete(const std::vector<std::string>& words, const std::string& folder = "/") {
  std::vector<std::string> arguments = {folder,
                                        tool_test::source_root() + "/tool/virt-compact.bash"};
  arguments.insert(arguments.end(), words.begin(), words.end());
  const auto outcome = tool_test::run_script(
      "source \"$2\"; cd \"$1\"; shift 2; COMP_WORDS=(\"$VIRT_COMPACT\" \"$@\"); COMP_CWORD=$#; "
      "_virt_compact; printf '%s\\n' \"${COMPREPLY[@]}\"",
      arguments);
  INFO(outcome.describe());
  CHECK(outcome.ok());
  CHECK(outcome.err.empty());
  return outcome.out;
}

}  // namespace

TEST_CASE("bash completes commands, options, values and files", "[completion]") {
  CHECK_THAT(complete({""}), Catch::Contains("copy\n") && Catch::EndsWith("\nhelp\n"));
  CHECK(complete({"-q", "i"}) == "info\n");
  CHECK_THAT(complete({"help", "co"}), Catch::Contains("copy\n"));
  CHECK(complete({"copy", "--c"}) == "--compression\n--cluster-size\n--connections\n--color\n");
  CHECK(complete({"info", "--ou"}) == "--output\n");
  CHECK(complete({"copy", "-f", ""}) == "qcow2\nraw\n");
  CHECK(complete({"bench", "-t", "d"}) == "directsync\n");
  CHECK(complete({"copy", "--color", "=", "a"}) == "auto\nalways\n");
  CHECK(complete({"copy", "--progress", "="}) == "bar\njson\nnone\n");
  CHECK(complete({"copy", "--threads", ""}) == "\n");

  const support::TempDirectory folder;
  support::write_file(folder / "disk one.qcow2", std::string("x"));
  support::write_file(folder / "other", std::string("x"));
  CHECK(complete({"copy", "d"}, folder.path()) == "disk one.qcow2\n");
}
