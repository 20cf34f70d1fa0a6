// The disk of a server or a pipe, where only a file can be used: an error that says what to do.

#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"

using namespace vc;

using Catch::Contains;
using tool_test::run_tool;
using Words = std::vector<std::string>;

TEST_CASE("commands for files refuse servers and pipes, with advice", "[servers]") {
  const struct {
    Words command;
    const char* why;
    const char* advice;
  } cases[] = {
      {{"optimize"}, "only files can be optimized", "virt-compact copy --skip-free"},
      {{"optimize", "-o", "/nonexistent/out"}, "only files can be optimized", "copy --skip-free"},
      {{"check"}, "only files can be checked", "check the file that it serves"},
      {{"snapshot", "-l"}, "only image files have internal snapshots", "nbdkit qcow2 plugin"},
      {{"snapshot", "-c", "s"}, "only image files have internal snapshots", "nbdkit qcow2 plugin"},
      {{"rebase", "-u", "-b", "x"}, "only image files name a backing file", "name the file"},
      {{"rollback"}, "only files can be rolled back", "name the file"},
      {{"compact"}, "can be compacted in place", "virt-compact copy"},
      {{"flatten", "--in-place"}, "only files can be flattened in place", "virt-compact copy"},
  };
  for (const auto& it : cases)
    for (const Words& disk : std::vector<Words>{{"nbd://localhost:1/x"},
                                                {"nbd+unix:///?socket=/nonexistent"},
                                                {"[", "nbdkit", "memory", "1M", "]"},
                                                {"-"}}) {
      Words command = it.command;
      command.insert(command.end(), disk.begin(), disk.end());
      INFO(support::shell_line(command));
      const auto outcome = run_tool(command);
      INFO(outcome.describe());
      CHECK(outcome.exit_code == 1);
      CHECK_THAT(outcome.err, Contains(it.why) && Contains(it.advice));
      CHECK(outcome.out.empty());
      CHECK_THAT(outcome.err, !Contains("No such file"));
    }
}
