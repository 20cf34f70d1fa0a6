#include "tests/appliance/left_behind.h"

#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

namespace test {

namespace fs = std::filesystem;

namespace {

std::set<std::string> temporary_files() {
  std::set<std::string> names;
  std::error_code error;
  const char* const temporary = std::getenv("TMPDIR");
  // libguestfs puts its socket into /tmp when it is root's, whatever TMPDIR says.
  for (const std::string folder : {temporary ? temporary : "/tmp", "/tmp", "/var/tmp"})
    for (const auto& it : fs::directory_iterator(folder, error)) {
      const std::string name = it.path().filename();
      if ((temporary && folder == temporary) || name.starts_with("libguestfs"))
        names.insert(it.path());
    }
  return names;
}

// Processes that have this test's mark in their environment, with their command line.
std::set<std::string> processes() {
  std::set<std::string> found;
  std::error_code error;
  const std::string mark = std::string("VIRT_COMPACT_TEST_RUN=") + std::to_string(::getpid());
  for (const auto& it : fs::directory_iterator("/proc", error)) {
    const std::string number = it.path().filename();
    if (number.find_first_not_of("0123456789") != std::string::npos) continue;
    if (number == std::to_string(::getpid())) continue;
    const auto read = [&](const char* file) {
      std::ifstream stream(it.path() / file, std::ios::binary);
      return std::string(std::istreambuf_iterator<char>(stream), {});
    };
    if (read("environ").find(mark) == std::string::npos) continue;
    std::string words = read("cmdline");
    for (char& c : words)
      if (c == '\0') c = ' ';
    if (!words.empty()) found.insert(number + " " + words.substr(0, 120));
  }
  return found;
}

std::string difference(const std::set<std::string>& before, const std::set<std::string>& after) {
  std::string text;
  for (const auto& it : after)
    if (!before.contains(it)) text += it + "\n";
  return text;
}

}  // namespace

LeftBehind::LeftBehind() {
  ::setenv("VIRT_COMPACT_TEST_RUN", std::to_string(::getpid()).c_str(), 1);
  files_ = temporary_files();
  processes_ = processes();
}

std::string LeftBehind::complaint() const {
  const auto look = [&] {
    return difference(files_, temporary_files()) + difference(processes_, processes());
  };
  // libguestfs has a process of its own that looks every second whether QEMU may live.
  std::string text = look();
  for (int i = 0; i < 50 && !text.empty(); ++i, text = look())
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  return text;
}

}  // namespace test
