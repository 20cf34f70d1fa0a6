#include "storage/lock_holder.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "base/retry.h"

namespace vc {

namespace {

using Folder = std::filesystem::directory_iterator;

// The longest search: a machine may have many processes with many files.
constexpr auto kPatience = std::chrono::seconds(1);

std::optional<pid_t> parse_pid(const std::string& text) {
  pid_t pid = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), pid);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return pid;
}

// Returns whether a line of /proc/PID/fdinfo/FD describes a lock on `byte` of a file with this
// inode number:
//   lock:	1: OFDLCK ADVISORY  READ -1 fe:00:11036652 100 101
bool is_lock_on(const std::string& line, ino_t inode, off_t byte) {
  if (line.rfind("lock:", 0) != 0) return false;
  uint64_t number = 0;
  int64_t first = 0;
  std::array<char, 24> last{};  // a number, or EOF
  if (std::sscanf(line.c_str(), "lock: %*s %*s %*s %*s %*s %*x:%*x:%" SCNu64 " %" SCNd64 " %23s",
                  &number, &first, last.data()) != 3)
    return false;
  if (number != inode || byte < first) return false;
  const std::string_view end(last.data());
  int64_t last_byte = INT64_MAX;
  if (end != "EOF") std::from_chars(end.data(), end.data() + end.size(), last_byte);
  return byte <= last_byte;
}

// Returns the name of the program file: the kernel truncates process names to 15 bytes.
std::string describe(pid_t pid) {
  std::error_code error;
  std::string program =
      std::filesystem::read_symlink(fmt::format("/proc/{}/exe", pid), error).filename().string();
  constexpr std::string_view kDeleted = " (deleted)";
  if (program.ends_with(kDeleted)) program.resize(program.size() - kDeleted.size());
  if (program.empty())
    std::getline(std::ifstream(fmt::format("/proc/{}/comm", pid)) >> std::ws, program);
  return program.empty() ? fmt::format("process {}", pid)
                         : fmt::format("{} (pid {})", program, pid);
}

class Search {
 public:
  Search(int fd, const struct stat& file, off_t byte) : own_fd_(fd), file_(file), byte_(byte) {}

  bool holds(pid_t pid) const {
    std::error_code error;
    for (Folder it(fmt::format("/proc/{}/fdinfo", pid), error), end; !error && it != end;
         it.increment(error)) {
      if (is_over()) return false;
      const std::string fd = it->path().filename().string();
      if (pid == getpid() && fd == std::to_string(own_fd_)) continue;
      if (has_lock(it->path()) && is_the_file(fmt::format("/proc/{}/fd/{}", pid, fd))) return true;
    }
    return false;
  }

  bool is_over() const { return std::chrono::steady_clock::now() > end_; }

 private:
  bool has_lock(const std::filesystem::path& info) const {
    std::ifstream lines(info);
    for (std::string line; std::getline(lines, line);)
      if (is_lock_on(line, file_.st_ino, byte_)) return true;
    return false;
  }

  // Called only for files with a matching inode number and lock: other files may be on a server
  // that does not respond.
  bool is_the_file(const std::string& path) const {
    struct stat status {};
    return retry(::stat, path.c_str(), &status) == 0 && status.st_dev == file_.st_dev &&
           status.st_ino == file_.st_ino;
  }

  const int own_fd_;
  const struct stat file_;
  const off_t byte_;
  const std::chrono::steady_clock::time_point end_ = std::chrono::steady_clock::now() + kPatience;
};

}  // namespace

std::optional<std::string> find_lock_holder(int fd, off_t byte, pid_t pid) {
  if (pid > 0) return describe(pid);
  struct stat status {};
  if (retry(::fstat, fd, &status) != 0) return std::nullopt;
  const Search search(fd, status, byte);
  std::error_code error;
  for (Folder it("/proc", error), end; !error && it != end && !search.is_over();
       it.increment(error)) {
    const auto candidate = parse_pid(it->path().filename().string());
    if (candidate && search.holds(*candidate)) return describe(*candidate);
  }
  return std::nullopt;
}

}  // namespace vc
