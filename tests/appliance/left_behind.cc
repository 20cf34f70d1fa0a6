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

// Nothing of what goes away meanwhile.
std::string contents(const fs::path& path) {
  try {
    std::ifstream stream(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(stream), {});
  } catch (const std::ios_base::failure&) {
    return {};
  }
}

// Calls `visit` with the folder in /proc of each process but this one.
template <typename Visit>
void for_each_process(Visit visit) {
  std::error_code error;
  for (const auto& it : fs::directory_iterator("/proc", error)) {
    const std::string number = it.path().filename();
    if (number.find_first_not_of("0123456789") == std::string::npos &&
        number != std::to_string(::getpid()))
      visit(it.path());
  }
}

// Whether somebody listens in the folder, or a program has been told of it: other appliances have
// folders, too.
bool is_used(const std::string& path) {
  bool used = contents("/proc/net/unix").find(path) != std::string::npos;
  for_each_process([&](const fs::path& process) {
    used = used || contents(process / "cmdline").find(path) != std::string::npos;
  });
  return used;
}

std::set<std::string> temporary_files() {
  std::set<std::string> names;
  std::error_code error;
  const char* const temporary = std::getenv("TMPDIR");
  // libguestfs puts its socket into /tmp when it is root's, whatever TMPDIR says.
  for (const std::string folder : {temporary ? temporary : "/tmp", "/tmp", "/var/tmp"})
    for (const auto& it : fs::directory_iterator(folder, error)) {
      const std::string name = it.path().filename();
      // Folders of the tests themselves, and libguestfs's cache.
      if (name.starts_with("virt-compact-test-") || name.starts_with(".guestfs-")) continue;
      if ((temporary && folder == temporary) ||
          (name.starts_with("libguestfs") && !is_used(it.path())))
        names.insert(it.path());
    }
  return names;
}

// Processes that have this test's mark in their environment, with their command line.
std::set<std::string> processes() {
  std::set<std::string> found;
  const std::string mark = std::string("VIRT_COMPACT_TEST_RUN=") + std::to_string(::getpid());
  for_each_process([&](const fs::path& process) {
    if (contents(process / "environ").find(mark) == std::string::npos) return;
    std::string words = contents(process / "cmdline");
    for (char& c : words)
      if (c == '\0') c = ' ';
    if (!words.empty()) found.insert(process.filename().string() + " " + words.substr(0, 120));
  });
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
  // And somebody else's appliance may be about to boot.
  for (int i = 0; i < 100 && !text.empty(); ++i, text = look())
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  return text;
}

}  // namespace test
