#include "tests/support/command_line.h"

#include <cstdlib>
#include <regex>
#include <sstream>
#include <stdexcept>

namespace vc::tool_test {

namespace {

std::string from_environment(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr || *value == '\0')
    throw std::runtime_error(std::string(name) + " is not set: run this through meson test");
  return value;
}

}  // namespace

std::string virt_compact() {
  return from_environment("VIRT_COMPACT");
}

std::string plugin() {
  return from_environment("VIRT_COMPACT_PLUGIN");
}

std::string source_root() {
  return from_environment("VIRT_COMPACT_SOURCE_ROOT");
}

support::Outcome run_tool(std::vector<std::string> arguments, const support::RunOptions& options) {
  arguments.insert(arguments.begin(), virt_compact());
  return support::run(arguments, options);
}

support::Outcome run_script(const std::string& script, const std::vector<std::string>& arguments) {
  (void)virt_compact();
  std::vector<std::string> command = {"bash", "-c", script, "bash"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return support::run(command);
}

std::string in_our_words(const std::string& qemu_img_output) {
  static const std::regex kHeading("VM_(SIZE|CLOCK)");
  static const std::regex kHours(R"( 00(\d\d:\d\d:\d\d\.\d{3}))");
  static const std::regex kNoCount(" +--$");
  std::istringstream lines(qemu_img_output);
  std::string text;
  bool in_child = false;
  bool in_snapshots = false;
  for (std::string line; std::getline(lines, line);) {
    in_child = line.rfind("Child node '", 0) == 0 || (in_child && line.rfind("    ", 0) == 0);
    if (in_child) continue;
    if (line.rfind("ID ", 0) == 0 && line.find("VM_SIZE") != std::string::npos) {
      in_snapshots = true;
      line = std::regex_replace(line, kHeading, "VM $1");
    } else if (in_snapshots) {
      line = std::regex_replace(line, kHours, " $1");
      line = std::regex_replace(line, kNoCount, "");
    }
    text += line + "\n";
  }
  return text;
}

}  // namespace vc::tool_test
