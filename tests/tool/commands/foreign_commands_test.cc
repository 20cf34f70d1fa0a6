#include "tool/commands/foreign_commands.h"

#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using tool::edit_distance;
using tool_test::run_tool;

TEST_CASE("the edit distance counts letters", "[foreign]") {
  CHECK(edit_distance("copy", "copy") == 0);
  CHECK(edit_distance("cpoy", "copy") == 1);
  CHECK(edit_distance("copyy", "copy") == 1);
  CHECK(edit_distance("cop", "copy") == 1);
  CHECK(edit_distance("kopy", "copy") == 1);
  CHECK(edit_distance("", "abc") == 3);
  CHECK(edit_distance("kitten", "sitting") == 3);
}

TEST_CASE("a command of another program causes a hint", "[foreign]") {
  const support::TempDirectory folder;
  support::write_file(folder / "disk", std::string("x"));
  const struct {
    std::string word;
    const char* advice;
  } cases[] = {
      {"convert", "virt-compact copy SRC DST"},
      {"sparsify", "virt-compact optimize DISK"},
      {"shrink", "virt-compact optimize DISK"},
      {"resize", "qemu-img resize"},
      {"create", "qemu-img create"},
      {"commit", "virt-compact flatten"},
      {"amend", "virt-compact copy -o"},
      {"version", "virt-compact --version"},
      {"dd", "virt-compact copy"},
      {"compact", "virt-compact optimize"},
      {"cpoy", "did you mean copy?"},
      {"optimise", "did you mean optimize?"},
      {"chekc", "did you mean check?"},
      {"snap", "did you mean snapshot?"},
      {"mesure", "did you mean measure?"},
      {"disk.qcow2", "the command before it is missing"},
      {folder / "disk", "the command before it is missing"},
      {"nbd://localhost", "the command before it is missing"},
  };
  for (const auto& it : cases)
    for (const std::vector<std::string>& command :
         std::vector<std::vector<std::string>>{{it.word, "a", "b"}, {"help", it.word}}) {
      const auto outcome = run_tool(command);
      INFO(outcome.describe());
      CHECK(outcome.exit_code == 1);
      CHECK(outcome.out.empty());
      CHECK_THAT(outcome.err, Catch::Contains(it.advice));
    }
  const auto strange = run_tool({"xyzzy"});
  CHECK(strange.err ==
        "virt-compact: error: unknown command 'xyzzy'\nTry 'virt-compact --help'.\n");
}
