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
      {"convert", "use virt-compact copy"},
      {"sparsify", "virt-compact optimize DISK"},
      {"shrink", "virt-compact optimize DISK"},
      {"resize", "qemu-img does this: qemu-img resize"},
      {"create", "qemu-img does this: qemu-img create"},
      {"bitmap", "qemu-img does this: qemu-img bitmap"},
      {"commit", "virt-compact flatten"},
      {"amend", "virt-compact copy -o"},
      {"version", "virt-compact --version"},
      {"dd", "virt-compact copy"},
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
  // The words after it are kept, and quoted for a shell.
  const std::pair<std::vector<std::string>, std::string> whole[] = {
      {{"convert", "-p", "-O", "qcow2", "-c", "my disk", "it's"},
       "'convert': use virt-compact copy -p -O qcow2 -c 'my disk' 'it'\\''s' (it accepts"},
      {{"qemu-img", "convert", "-c", "a", "b"}, "use virt-compact copy -c a b (it accepts"},
      {{"qemu-img", "info", "a"}, "unknown command 'qemu-img': use virt-compact info a\n"},
      {{"resize", "disk", "+10G"}, "qemu-img does this: qemu-img resize disk +10G ("},
      {{"rebase", "-b", "new", "top"}, "'virt-compact copy -B NEW FILE DST'"},
  };
  for (const auto& [command, advice] : whole) {
    const auto outcome = run_tool(command);
    INFO(outcome.describe());
    CHECK(outcome.exit_code == 1);
    CHECK_THAT(outcome.err, Catch::Contains(advice));
  }
  const auto strange = run_tool({"xyzzy"});
  CHECK(strange.err ==
        "virt-compact: error: unknown command 'xyzzy'\nTry 'virt-compact --help'.\n");
}
