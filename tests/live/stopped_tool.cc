#include "tests/live/stopped_tool.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>

#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <thread>

#include "tests/support/command_line.h"
#include "tests/support/raw_file.h"

namespace vc::live_test {

namespace {

// Returns the state of a process, such as 'T' (stopped) or 'Z'.
char process_state(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string text;
  std::getline(file, text);
  const size_t end = text.rfind(')');
  return end == std::string::npos || end + 2 >= text.size() ? 'X' : text[end + 2];
}

std::vector<std::string> command_of(const std::vector<std::string>& arguments,
                                    const std::string& environment) {
  const char* const library = std::getenv("VIRT_COMPACT_STOP");
  if (!library) throw std::runtime_error("VIRT_COMPACT_STOP is not set");
  // AddressSanitizer wants to be the first library.
  const char* const options = std::getenv("ASAN_OPTIONS");
  std::vector<std::string> command{
      "env", std::string("LD_PRELOAD=") + library,
      fmt::format("ASAN_OPTIONS={}:verify_asan_link_order=0", options ? options : ""), environment,
      tool_test::virt_compact()};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return command;
}

}  // namespace

void wait_until(const char* what, const std::function<bool()>& is_done) {
  const auto start = std::chrono::steady_clock::now();
  while (!is_done()) {
    if (std::chrono::steady_clock::now() - start > kLongestWait) throw std::runtime_error(what);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

std::string text_of(const std::string& path) {
  const auto bytes = support::read_file(path);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

ino_t inode(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 ? status.st_ino : 0;
}

std::string stop_at(const std::string& step) {
  return "VIRT_COMPACT_STOP_AT=" + step;
}

StoppedTool::StoppedTool(const std::vector<std::string>& arguments, const std::string& environment,
                         const std::string& log)
    : log_(log), child_(command_of(arguments, environment), log_) {
  wait_until("the command did not stop", [&] {
    if (!child_.running())
      throw std::runtime_error("the command has ended instead: " + text_of(log_));
    return process_state(child_.pid()) == 'T';
  });
}

void StoppedTool::go_on() {
  ::kill(child_.pid(), SIGCONT);
}

std::string StoppedTool::finish() {
  wait_until("the command does not end", [&] { return !child_.running(); });
  return text_of(log_);
}

}  // namespace vc::live_test
