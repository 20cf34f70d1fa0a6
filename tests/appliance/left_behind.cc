#include "tests/appliance/left_behind.h"

#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

namespace vc::test {

namespace fs = std::filesystem;

namespace {

// Processes that end in the meantime are skipped.
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

// Returns true for a folder with a socket of libguestfs on which no process listens.
bool is_dead(const fs::path& folder) {
  const std::string socket = folder / "guestfsd.sock";
  std::error_code error;
  return fs::exists(fs::symlink_status(socket, error)) &&
         contents("/proc/net/unix").find(socket) == std::string::npos;
}

// Returns the command lines of processes with this test's mark in their environment.
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
  if (const char* const temporary = std::getenv("TMPDIR")) temporary_ = temporary;
  ::setenv("TMPDIR", folder_.path().c_str(), 1);
  // Otherwise each test folder would get an appliance of its own.
  ::setenv("LIBGUESTFS_CACHEDIR", "/var/tmp", 0);
  ::setenv("VIRT_COMPACT_TEST_RUN", std::to_string(::getpid()).c_str(), 1);
  files_ = files();
  processes_ = processes();
}

LeftBehind::~LeftBehind() {
  if (temporary_)
    ::setenv("TMPDIR", temporary_->c_str(), 1);
  else
    ::unsetenv("TMPDIR");
}

std::set<std::string> LeftBehind::files() const {
  std::set<std::string> names;
  std::error_code error;
  for (const auto& it : fs::directory_iterator(folder_.path(), error))
    // Skips the folders of tests.
    if (!it.path().filename().string().starts_with("virt-compact-test-")) names.insert(it.path());
  // libguestfs puts root's socket into /tmp, whatever TMPDIR says.
  for (const auto& it : fs::directory_iterator("/tmp", error))
    if (it.path().filename().string().starts_with("libguestfs") && is_dead(it.path()))
      names.insert(it.path());
  return names;
}

std::string LeftBehind::complaint() const {
  const auto look = [&] {
    return difference(files_, files()) + difference(processes_, processes());
  };
  std::string text = look();
  // libguestfs's helper process checks only now and then whether QEMU must end.
  for (int i = 0; i < 300 && !text.empty(); ++i, text = look())
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  return text;
}

}  // namespace vc::test
