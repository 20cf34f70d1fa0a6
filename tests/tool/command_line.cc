#include "tests/tool/command_line.h"

#include <cstdlib>
#include <stdexcept>

namespace tool_test {

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

}  // namespace tool_test
