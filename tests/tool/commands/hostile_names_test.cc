// Names of files, snapshots and bitmaps with control characters, with characters that change the
// direction of text, and with bytes that are not UTF-8. No output of the command or the plugin
// contains them unescaped.

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

namespace {

using tool_test::run_tool;
using Words = std::vector<std::string>;

// U+009B, U+202E, U+2028, a byte that is not UTF-8, ESC.
const std::string kHostile = "a\u009b2Jb\u202ec\u2028d\xff\x1b[2Je";

bool is_harmless(const std::string& text) {
  for (const char* it : {"\u009b", "\u202e", "\u2028", "\xff", "\x1b"})
    if (text.find(it) != std::string::npos) return false;
  return true;
}

bool is_ascii(const std::string& text) {
  return std::all_of(text.begin(), text.end(),
                     [](char it) { return static_cast<unsigned char>(it) < 0x80; });
}

// Makes an overlay with a backing file, a snapshot and a bitmap, all with such names.
std::string make_overlay(const support::TempDirectory& folder) {
  const std::string base = folder / (kHostile + ".base");
  const std::string top = folder / (kHostile + ".qcow2");
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", base, "1M"});
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top});
  support::run_ok({"qemu-io", "-c", "write -q -P 7 0 64k", top});
  support::run_ok({"qemu-img", "snapshot", "-c", kHostile, top});
  support::run_ok({"qemu-img", "bitmap", "--add", top, "bitmap\u202e\u009b"});
  return top;
}

void check_harmless(const Words& command) {
  const auto outcome = run_tool(command);
  INFO(outcome.describe());
  CHECK(is_harmless(outcome.out));
  CHECK(is_harmless(outcome.err));
}

}  // namespace

TEST_CASE("no name reaches the terminal unescaped", "[names]") {
  const support::TempDirectory folder;
  const std::string top = make_overlay(folder);
  for (const Words& command : std::vector<Words>{
           {"info", "-v", "--backing-chain", top},
           {"check", "-v", top},
           {"map", top},
           {"measure", top},
           {"space", top},
           {"compare", top, top},
           {"compare", top, folder / "nothing\u009b"},
           {"copy", "-v", top, folder / ("copy" + kHostile)},
           {"copy", top, folder / ("copy" + kHostile)},
           {"flatten", top, folder / ("flat" + kHostile)},
           {"snapshot", "-l", top},
           {"snapshot", "-v", "-c", kHostile, top},
           {"snapshot", "-d", "no\u202e", top},
           {"copy", "--snapshot", "no\u202e", top, folder / "new"},
           {"copy", "-o", "\u202e=1", top, folder / "new"},
           {"bench", "-c", "3", top},
           {"check", "-r", "all", top},
           {"check", "--apply-undo", top + ".undo", top},
           {"optimize", top + "\u2028"},
           {"rollback", top},
           {"tune", top},
           {"punch", "nbd+unix:///?socket=" + top},
           {"\u009bcopy"},
           {"copy", "--\u202e"},
       }) {
    INFO(support::shell_line(command));
    check_harmless(command);
  }
}

TEST_CASE("JSON output is ASCII", "[names]") {
  const support::TempDirectory folder;
  const std::string top = make_overlay(folder);
  for (const Words& command : std::vector<Words>{
           {"info", "--output=json", "--backing-chain", top},
           {"check", "--output=json", top},
           {"map", "--output=json", top},
           {"measure", "--output=json", top},
           {"space", "--output=json", top},
           {"compare", "--json", top, top},
           {"copy", "--json", top, folder / ("copy" + kHostile)},
           {"flatten", "--json", top, folder / ("flat" + kHostile)},
           {"snapshot", "-l", "--output=json", top},
           {"bench", "-c", "3", "--output=json", top},
       }) {
    INFO(support::shell_line(command));
    const auto outcome = run_tool(command);
    INFO(outcome.describe());
    CHECK(outcome.ok());
    CHECK(is_ascii(outcome.out));
    CHECK_FALSE(nlohmann::json::parse(outcome.out, nullptr, false).is_discarded());
    if (command.front() == "info")
      CHECK_THAT(outcome.out, Catch::Contains("a\\u009b2Jb\\u202ec\\u2028d\\ufffd\\u001b[2Je"));
  }
}
