#include "tool/options/arguments.h"

#include <algorithm>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>

#include "tests/catch_text.h"
#include "tests/support/command_line.h"

using namespace vc;

using tool_test::run_tool;

namespace {

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

void find_options(const std::string& text, std::set<std::string>& to) {
  static const std::regex option("(^|[ <])(--?[A-Za-z][A-Za-z-]*)");
  for (std::sregex_iterator it(text.begin(), text.end(), option), end; it != end; ++it)
    to.insert((*it)[2]);
}

// Returns the options that the help of `command` explains: the starts of its indented lines.
std::set<std::string> options_of_help(const std::string& command) {
  std::set<std::string> options;
  for (const std::string& line : lines_of(run_tool({command, "--help-all"}).out))
    if (line.rfind("  -", 0) == 0 || line.rfind("      --", 0) == 0)
      find_options(line.substr(0, 27), options);
  return options;
}

// Returns the options that have an item in its manual page.
std::set<std::string> options_of_manual(const std::string& command) {
  std::ifstream page(tool_test::source_root() + "/man/virt-compact-" + command + ".pod");
  REQUIRE(page);
  std::set<std::string> options;
  for (std::string line; std::getline(page, line);)
    if (line.rfind("=item B<-", 0) == 0) find_options(line, options);
  return options;
}

}  // namespace

TEST_CASE("errors in the arguments are named", "[arguments]") {
  struct Mistake {
    std::vector<std::string> arguments;
    std::string message;
    std::string help;  // owns the text
  };
  const std::vector<Mistake> mistakes = {
      {{"-q"}, "no command given", "virt-compact"},
      {{"cpoy", "a", "b"}, "unknown command 'cpoy': did you mean copy?", "virt-compact"},
      {{"help", "cpoy"}, "unknown command 'cpoy': did you mean copy?", "virt-compact"},
      {{"--bogus"}, "unknown option '--bogus'", "virt-compact"},
      {{"copy"}, "SRC is missing", "virt-compact copy"},
      {{"copy", "a"}, "DST is missing", "virt-compact copy"},
      {{"copy", "a", "b", "c"}, "unexpected argument 'c'", "virt-compact copy"},
      {{"copy", "copy", "info", "info"}, "unexpected argument 'info'", "virt-compact copy"},
      {{"copy", "--json", "disk.qcow2", "-"},
       "--json: standard output already receives the image",
       "virt-compact copy"},
      {{"copy", "[", "nbdkit", "null"},
       "'[' begins a command, and there is no ']' after it",
       "virt-compact"},
      {{"copy", "[", "]", "b"}, "'[ ]': the command is missing", "virt-compact"},
      {{"copy", "-o", "sise=1", "a", "b"},
       "-o: 'sise' is not an option of an image: the options are compat, cluster_size, "
       "refcount_bits, extended_l2, lazy_refcounts, preallocation, compression_type, "
       "compression_level, backing_file, backing_fmt, data_file, data_file_raw, encrypt.format, "
       "encrypt.key-secret, encrypt.cipher-alg, encrypt.cipher-mode, encrypt.ivgen-alg, "
       "encrypt.ivgen-hash-alg, encrypt.hash-alg, encrypt.iter-time, size",
       "virt-compact copy"},
      {{"copy", "-o", "cluster_size=64k,extended_l2=yes", "a", "b"},
       "-o: extended_l2: 'yes' is neither on nor off",
       "virt-compact copy"},
      {{"copy", "--profile", "fast", "a", "b"},
       "--profile: 'fast' is not one of: sequential, random, archive",
       "virt-compact copy"},
      {{"punch"}, "URI is missing", "virt-compact punch"},
      {{"trim"}, "DISK is missing", "virt-compact trim"},
      {{"copy", "--bogus", "a", "b"}, "unknown option '--bogus'", "virt-compact copy"},
      {{"copy", "-y", "a", "b"}, "unknown option '-y'", "virt-compact copy"},
      {{"copy", "a", "b", "--forc"}, "unknown option '--forc'", "virt-compact copy"},
      {{"copy", "a", "b", "--threads"}, "--threads: its value is missing", "virt-compact copy"},
      {{"copy", "--threads=", "a", "b"}, "--threads: its value is empty", "virt-compact"},
      {{"copy", "--threads", "x", "a", "b"},
       "--threads: 'x' is not a whole number from 0 to 256",
       "virt-compact copy"},
      {{"copy", "--threads=-1", "a", "b"},
       "--threads: '-1' is not a whole number from 0 to 256",
       "virt-compact copy"},
      {{"copy", "--connections=65", "a", "b"},
       "--connections: '65' is not a whole number from 1 to 64",
       "virt-compact copy"},
      {{"copy", "--requests=0", "a", "b"},
       "--requests: '0' is not a whole number from 1 to 1024",
       "virt-compact copy"},
      {{"copy", "--request-size=3M", "a", "b"},
       "--request-size: '3M' is not a power of two from 4k to 32M",
       "virt-compact copy"},
      {{"copy", "--cluster-size=4M", "a", "b"},
       "--cluster-size: '4M' is not a power of two from 512 to 2M",
       "virt-compact copy"},
      {{"copy", "--cluster-size=big", "a", "b"},
       "--cluster-size: 'big' is not a size, such as 65536, 64k or 1.5G",
       "virt-compact copy"},
      {{"copy", "--compression=lzo", "a", "b"},
       "--compression: 'lzo' is not one of: none, zstd[:LEVEL], zlib[:LEVEL][,window=4k]",
       "virt-compact copy"},
      {{"copy", "--compression=zlib:13", "a", "b"},
       "--compression: level of zlib: '13' is not a whole number from 1 to 12",
       "virt-compact copy"},
      {{"copy", "--compression=zlib:10,window=4k", "a", "b"},
       "--compression: level of zlib with a window of 4 KiB: '10' is not a whole number from 1 to "
       "9",
       "virt-compact copy"},
      {{"copy", "--compression=zlib,window=8k", "a", "b"},
       "--compression: 'window=8k' is neither window=4k nor window=32k",
       "virt-compact copy"},
      {{"copy", "--compression=zstd:3,window=4k", "a", "b"},
       "--compression: 'window=4k': zstd accepts no options",
       "virt-compact copy"},
      {{"copy", "--compression=zstd:0", "a", "b"},
       "--compression: level of zstd: '0' is not a whole number from 1 to 22",
       "virt-compact copy"},
      {{"copy", "--compression=none:1", "a", "b"},
       "--compression: 'none:1' is not one of: none, zstd[:LEVEL], zlib[:LEVEL][,window=4k]",
       "virt-compact copy"},
      {{"copy", "-c", "--compression=none", "a", "b"},
       "-c and --compression=none exclude each other",
       "virt-compact copy"},
      {{"copy", "--force=yes", "a", "b"}, "--force: accepts no value", "virt-compact copy"},
      {{"copy", "-f", "vmdk", "a", "b"},
       "--format: 'vmdk' is not a supported format: use qcow2, raw or luks",
       "virt-compact copy"},
      {{"copy", "--color=mauve", "a", "b"},
       "--color: 'mauve' is not one of: auto, always, never",
       "virt-compact copy"},
      {{"copy", "--progress=dots", "a", "b"},
       "--progress: 'dots' is not one of: bar, json, none",
       "virt-compact copy"},
      {{"info"}, "FILE is missing", "virt-compact info"},
      {{"info", "--output=xml", "a"},
       "--output: 'xml' is neither human nor json",
       "virt-compact info"},
      {{"info", "a\nb\x1b[2J", "c\nd"}, "unexpected argument 'c\\x0ad'", "virt-compact info"},
  };
  for (const Mistake& mistake : mistakes) {
    const auto outcome = run_tool(mistake.arguments);
    CAPTURE(support::shell_line(mistake.arguments));
    CHECK(outcome.exit_code == 1);
    CHECK(outcome.out.empty());
    CHECK(outcome.err ==
          "virt-compact: error: " + mistake.message + "\nTry '" + mistake.help + " --help'.\n");
  }
}

TEST_CASE("--version prints the version", "[arguments]") {
  for (const auto& arguments :
       std::vector<std::vector<std::string>>{{"--version"}, {"-V"}, {"copy", "--version"}}) {
    const auto outcome = run_tool(arguments);
    CHECK(outcome.ok());
    CHECK(outcome.out == "virt-compact 0.1.0\n");
  }
}

TEST_CASE("every help fits a screen", "[arguments]") {
  for (const char* command :
       {"",         "bench",    "check",   "compact", "compare",  "copy",  "flatten",
        "info",     "map",      "measure", "nightly", "optimize", "punch", "rebase",
        "rollback", "snapshot", "space",   "trim",    "tune",     "help"}) {
    const auto outcome = *command != '\0' ? run_tool({command, "--help"}) : run_tool({"--help"});
    CAPTURE(command, outcome.out);
    CHECK(outcome.ok());
    CHECK(outcome.err.empty());
    const auto lines = lines_of(outcome.out);
    CHECK(lines.size() <= 23);  // with a line left for the prompt
    CHECK(std::all_of(lines.begin(), lines.end(),
                      [](const std::string& line) { return line.size() < 80; }));
    CHECK_THAT(outcome.out, Catch::StartsWith("Usage: virt-compact "));
  }
  CHECK(run_tool({"help", "copy"}).out == run_tool({"copy", "--help"}).out);
  CHECK(run_tool({"help"}).out == run_tool({"--help"}).out);
  CHECK_THAT(run_tool({"-h"}).out, Catch::Contains("\n  copy ") && Catch::Contains("\n  info "));
}

TEST_CASE("without arguments, the help is printed, and begins with the usual tasks",
          "[arguments]") {
  const auto outcome = run_tool({});
  CHECK(outcome.exit_code == 1);
  CHECK(outcome.err.empty());
  CHECK(outcome.out == run_tool({"--help"}).out);
  const auto lines = lines_of(outcome.out);
  REQUIRE(lines.size() > 5);
  CHECK_THAT(lines[2], Catch::StartsWith("  virt-compact optimize --dry-run DISK "));
  CHECK_THAT(lines[3], Catch::StartsWith("  virt-compact optimize DISK "));
  CHECK_THAT(lines[4], Catch::StartsWith("  virt-compact copy -c SRC DST "));
}

TEST_CASE("help and manual know the same options", "[arguments]") {
  for (const char* command : {"bench", "check", "compare", "copy", "info", "map", "measure",
                              "nightly", "optimize", "punch", "space", "trim", "tune"}) {
    CAPTURE(command);
    const auto help = options_of_help(command);
    CHECK(help.size() > 8);
    CHECK(help == options_of_manual(command));
  }
}

TEST_CASE("common options are accepted before and after the command", "[arguments]") {
  for (const auto& arguments : std::vector<std::vector<std::string>>{
           {"--color", "always", "-q", "info", "/nowhere"},
           {"info", "--color", "always", "-q", "/nowhere"},
           {"info", "/nowhere", "-q", "--color=never", "--color=always"}}) {
    const auto outcome = run_tool(arguments);
    CHECK(outcome.exit_code == 1);
    CHECK(outcome.err ==
          "virt-compact: \x1b[1;31merror:\x1b[0m /nowhere: No such file or directory\n");
  }
}

TEST_CASE("arguments after -- are not options", "[arguments]") {
  const auto outcome = run_tool({"info", "--", "--help"});
  CHECK(outcome.exit_code == 1);
  CHECK(outcome.err == "virt-compact: error: --help: No such file or directory\n");
}

TEST_CASE("an error on standard output is an error of the command", "[arguments]") {
  using tool_test::run_script;
  const std::string error = "virt-compact: error: standard output: ";
  auto outcome = run_script("\"$VIRT_COMPACT\" --help >&-");
  CHECK(outcome.exit_code == 1);
  CHECK(outcome.err == error + "Bad file descriptor\n");
  outcome = run_script("\"$VIRT_COMPACT\" --help >/dev/full");
  CHECK(outcome.exit_code == 1);
  CHECK(outcome.err == error + "No space left on device\n");
  // The reader has ended before the command starts.
  outcome = run_script("{ sleep 0.3; \"$VIRT_COMPACT\" --help; echo $? >&2; } | true");
  CHECK(outcome.err == error + "Broken pipe\n1\n");
  // Without standard error: still no crash.
  CHECK(run_script("\"$VIRT_COMPACT\" --help >&- 2>&- <&-").exit_code == 1);
}

TEST_CASE("each command has JSON, by either option", "[arguments]") {
  // optimize's --output names the result, and also accepts these two words.
  for (const char* command :
       {"bench", "check", "compact", "compare", "copy", "flatten", "info", "map", "measure",
        "nightly", "punch", "rebase", "rollback", "snapshot", "space", "trim", "tune"}) {
    CAPTURE(command);
    const auto options = options_of_help(command);
    CHECK(options.count("--json") == 1);
    CHECK(options.count("--output") == 1);
    CHECK(run_tool({command, "--output=xml", "x"}).err.find("neither human nor json") !=
          std::string::npos);
    CHECK(run_tool({command, "--json", "--output=human", "x"}).err.find("contradicts") !=
          std::string::npos);
  }
  CHECK(options_of_help("optimize").count("--json") == 1);
  CHECK(run_tool({"optimize", "--json", "--output=human", "x"}).err.find("contradicts") !=
        std::string::npos);
}

TEST_CASE("each command waits a minute for a server by default", "[arguments]") {
  for (const char* command :
       {"bench", "compare", "copy", "info", "map", "measure", "punch", "space", "trim"}) {
    CAPTURE(command);
    CHECK_THAT(run_tool({command, "--help-all"}).out,
               Catch::Contains("wait for an answer; default 60, 0: no limit"));
  }
}
