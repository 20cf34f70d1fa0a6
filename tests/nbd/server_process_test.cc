// Servers that are started for a copy. Nothing of them is left afterwards.

#include "nbd/server_process.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "copy/source/nbd_source.h"
#include "tests/catch_text.h"
#include "tests/copy/disks.h"
#include "tests/copy/memory_sink.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using copy::NbdSource;
using nbd::NbdTarget;
using nbd::ServerProcess;
using support::TempDirectory;

namespace {

using Clock = std::chrono::steady_clock;
using Words = std::vector<std::string>;

// Returns true if the process exists and is not a zombie.
bool alive(pid_t pid) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  if (!std::getline(status, line)) return false;
  return line.substr(line.rfind(')') + 2, 1) != "Z";
}

bool gone_within(pid_t pid, std::chrono::milliseconds time) {
  const auto deadline = Clock::now() + time;
  while (alive(pid)) {
    if (Clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

pid_t wait_for_pid(const std::string& file) {
  const auto deadline = Clock::now() + std::chrono::seconds(20);
  while (Clock::now() < deadline) {
    std::ifstream in(file);
    if (pid_t pid = 0; in >> pid) return pid;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return 0;
}

// A folder for temporary files, which must be empty at the end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    if (const char* const before = std::getenv("TMPDIR")) before_ = before;
    ::setenv("TMPDIR", folder_.path().c_str(), 1);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    if (before_.empty())
      ::unsetenv("TMPDIR");
    else
      ::setenv("TMPDIR", before_.c_str(), 1);
  }
  bool empty() const { return support::list_directory(folder_.path()).empty(); }

 private:
  TempDirectory folder_;
  std::string before_;
};

}  // namespace

TEST_CASE("a server is started for the copy, and several connections made to it", "[copy]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 1, 6 << 20);
  const auto expected = support::read_file(folder / "raw");
  const TemporaryFolder temporary;
  const std::string pidfile = folder / "pid";
  const std::vector<Words> commands{
      {"nbdkit", "--pidfile", pidfile, "file", folder / "raw"},
      {"qemu-nbd", "--pid-file=" + pidfile, "-r", "-f", "raw", "--shared=0", folder / "raw"},
      // Serves one client, and then ends.
      {"qemu-nbd", "--pid-file=" + pidfile, "-r", "-f", "raw", folder / "raw"},
      // A wrapper that executes the server.
      {"sh", "-c", "exec nbdkit --pidfile \"$0\" file \"$1\"", pidfile, folder / "raw"}};
  for (const Words& command : commands) {
    INFO(support::shell_line(command));
    ::unlink(pidfile.c_str());
    const Cancel cancel;
    Stop stop(cancel);
    pid_t pid = 0;
    {
      auto source = NbdSource::open(NbdTarget{"", command}, {}, stop);
      REQUIRE_OK(source);
      pid = wait_for_pid(pidfile);
      REQUIRE(pid > 0);
      CHECK(alive(pid));
      CHECK(temporary.empty());
      CHECK((*source)->name().starts_with("[ " + command.front() + " "));
      const bool one = command.front() == "qemu-nbd" && command.size() == 6;
      CHECK((*source)->connections() == (one ? 1 : 4));
      test::MemorySink sink((*source)->size(), 16);
      test::Watcher watcher;
      REQUIRE_OK(test::run_into(**source, sink, watcher, stop));
      CHECK(sink.bytes == expected);
    }
    CHECK_FALSE(alive(pid));
    CHECK(temporary.empty());
  }
}

TEST_CASE("a command that is not a server is an error", "[copy]") {
  const TempDirectory folder;
  const TemporaryFolder temporary;
  const Cancel cancel;
  const Stop stop(cancel);
  const auto open = [&](const Words& command) {
    return NbdSource::open(NbdTarget{"", command}, {}, stop);
  };
  const auto start = Clock::now();
  REQUIRE_FAILS_WITH(open({"/no/such/server", "x"}), "[ /no/such/server x ]: cannot execute");
  REQUIRE_FAILS_WITH(open({"/no/such/server", "x"}), "No such file or directory");
  REQUIRE_FAILS_WITH(open({"/"}), "Permission denied");
  REQUIRE_FAILS_WITH(open({"true"}), "[ true ]: the server has ended: exit status 0");
  REQUIRE_FAILS_WITH(open({"sh", "-c", "exit 3"}), "exit status 3");
  REQUIRE_FAILS_WITH(open({"sh", "-c", "kill -9 $$"}), "killed by signal 9");
  REQUIRE_FAILS_WITH(open({"nbdkit", "file", folder / "missing"}), "exit status 1");
  // nbdkit's own messages go to standard error.
  REQUIRE_FAILS_WITH(open({"nbdkit", "-f", "-t", "2", "no-such", "x"}),
                     "exit status 1: nbdkit has no plugin 'no-such': there is no /");
  REQUIRE_FAILS_WITH(open({"nbdkit", "--filter=no-such", "memory", "1M"}),
                     "nbdkit has no filter 'no-such': there is no /");
  REQUIRE_FAILS_WITH(open({"qemu-nbd", "-r", folder / "missing"}), "exit status 1");
  CHECK(Clock::now() - start < std::chrono::seconds(60));
  CHECK(temporary.empty());
}

TEST_CASE("a started server that dies ends the wait", "[copy]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 2, 16 << 20);
  const Cancel cancel;
  Stop stop(cancel);
  NbdSource::Options options;
  options.tuning.retries = 1000;
  auto source = NbdSource::open(NbdTarget{"",
                                          {"nbdkit", "--pidfile", folder / "pid", "--filter=delay",
                                           "file", folder / "raw", "rdelay=5ms"}},
                                options, stop);
  REQUIRE_OK(source);
  test::Watcher watcher;
  const pid_t pid = wait_for_pid(folder / "pid");
  REQUIRE(pid > 0);
  watcher.on_update = [&](uint64_t) { ::kill(pid, SIGKILL); };
  test::MemorySink sink((*source)->size(), 16);
  const auto start = Clock::now();
  const auto failed = test::run_into(**source, sink, watcher, stop);
  REQUIRE_FAILS_WITH(failed, "the server has ended: killed by signal 9");
  CHECK(Clock::now() - start < std::chrono::seconds(60));
}

TEST_CASE("a server that does not end is killed with all of its child processes", "[copy]") {
  const TempDirectory folder;
  Cancel cancel;
  const Stop stop(cancel);
  pid_t child = 0;
  pid_t grandchild = 0;
  const auto start = Clock::now();
  {
    // The child ends after SIGTERM, and ends its own child, too; or neither ends.
    std::string script = "sleep 1000 & echo $! >\"$0.part\"; mv \"$0.part\" \"$0\"; wait";
    SECTION("it ends, and leaves a process behind") {
      script = "trap 'exit 0' TERM; (trap '' TERM; exec sleep 1000) & " + script.substr(13);
    }
    SECTION("it is deaf") {
      // A cancelled wait ends earlier.
      cancel.request();
      script = "trap '' TERM; " + script;
    }
    auto server = ServerProcess::start({"sh", "-c", script, folder / "pid"}, stop);
    REQUIRE_OK(server);
    child = (*server)->pid();
    grandchild = wait_for_pid(folder / "pid");
    REQUIRE(grandchild > 0);
    CHECK(alive(child));
    CHECK(alive(grandchild));
  }
  CHECK_FALSE(alive(child));
  CHECK(gone_within(grandchild, std::chrono::seconds(20)));
  CHECK(Clock::now() - start < std::chrono::seconds(60));
}

TEST_CASE("a server does not outlive the process that started it", "[copy]") {
  const TemporaryFolder temporary;
  std::array<int, 2> ends{};
  REQUIRE(::pipe(ends.data()) == 0);
  const pid_t us = ::fork();
  REQUIRE(us >= 0);
  if (us == 0) {
    const Cancel cancel;
    const Stop stop(cancel);
    auto server = ServerProcess::start({"nbdkit", "memory", "1M"}, stop);
    const pid_t pid = server ? (*server)->pid() : 0;
    if (::write(ends[1], &pid, sizeof pid) != sizeof pid) ::_exit(1);
    while (true) ::pause();
  }
  pid_t server = 0;
  REQUIRE(::read(ends[0], &server, sizeof server) == sizeof server);
  ::close(ends[0]);
  ::close(ends[1]);
  CHECK(server > 0);
  CHECK(alive(server));
  ::kill(us, SIGKILL);
  ::waitpid(us, nullptr, 0);
  CHECK(gone_within(server, std::chrono::seconds(20)));
  CHECK(temporary.empty());
}

TEST_CASE("a server inherits its socket, and no other descriptor", "[copy]") {
  const TempDirectory folder;
  const Cancel cancel;
  const Stop stop(cancel);
  ::setenv("LISTEN_FDNAMES", "stale", 1);
  auto server = ServerProcess::start(
      {"sh", "-c",
       "{ echo $LISTEN_FDS; test $LISTEN_PID = $$ && echo same; echo names:$LISTEN_FDNAMES; "
       "cat | wc -c; readlink /proc/$$/fd/3 | cut -d: -f1; test -e /proc/$$/fd/4 || echo no more; "
       "} >\"$0.part\"; echo out; mv \"$0.part\" \"$0\"",
       folder / "told"},
      stop);
  ::unsetenv("LISTEN_FDNAMES");
  REQUIRE_OK(server);
  const auto deadline = Clock::now() + std::chrono::seconds(20);
  while (::access((folder / "told").c_str(), F_OK) != 0 && Clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  const auto told = support::read_file(folder / "told");
  CHECK(std::string(reinterpret_cast<const char*>(told.data()), told.size()) ==
        "1\nsame\nnames:\n0\nsocket\nno more\n");
}
