// QEMU's locks, tested with QEMU: which processes are refused, which are permitted, and the
// messages.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <stdexcept>
#include <thread>

#include "tests/catch.h"
#include "tests/interop/nbd_client.h"
#include "tests/support/command_line.h"
#include "tests/support/nbd_server.h"
#include "tests/support/process.h"
#include "tests/support/temp_directory.h"

namespace vc::interop {

using Catch::Contains;
using support::Child;
using support::NbdServer;
using support::Outcome;
using support::run;
using support::run_ok;
using support::TempDirectory;

namespace {

Outcome tool(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), tool_test::virt_compact());
  return run(arguments);
}

template <typename Condition>
void wait_until(const std::string& what, Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline)
      throw std::runtime_error("waited in vain for " + what);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

bool exists(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0;
}

// QEMU with an image open, for writing or read-only, while the object lives.
class Qemu {
 public:
  Qemu(const TempDirectory& folder, const std::string& image, bool writes)
      : socket_(folder / "qemu"), child_(command(image, writes, socket_), folder / "qemu.log") {
    support::wait_for_greeting(socket_);
  }

  // Name in our messages.
  std::string name() const { return fmt::format("qemu-nbd (pid {})", child_.pid()); }

 private:
  static std::vector<std::string> command(const std::string& image, bool writes,
                                          const std::string& socket) {
    std::vector<std::string> words{"qemu-nbd", "-f", "qcow2", "-t", "-k", socket};
    if (!writes) words.push_back("-r");
    words.push_back(image);
    return words;
  }

  std::string socket_;
  Child child_;
};

// Makes a chain of two images, "base" and "top".
void make_images(const TempDirectory& folder) {
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", folder / "base", "4M"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -P 7 0 1M", folder / "base"});
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", folder / "base", "-F", "qcow2",
          folder / "top"});
}

bool qemu_can_read(const std::string& image) {
  const auto outcome = run({"qemu-io", "-r", "-f", "qcow2", "-c", "read 0 64k", image});
  if (!outcome.ok()) CHECK_THAT(outcome.err, Contains("Failed to get shared \"write\" lock"));
  return outcome.ok();
}

bool qemu_can_write(const std::string& image) {
  const auto outcome = run({"qemu-io", "-f", "qcow2", "-c", "write 0 64k", image});
  if (!outcome.ok())
    CHECK_THAT(outcome.err, Contains("Failed to get \"write\" lock") ||
                                Contains("Failed to get shared \"write\" lock"));
  return outcome.ok();
}

void write_as_client(const std::string& uri) {
  run_ok({"qemu-io", "-f", "raw", "-c", "write -P 9 0 64k", uri});
}

std::string in_use(const std::string& image, const std::string& by, const std::string& option) {
  return fmt::format(
      "{}: is in use by {}, which writes to it: shut it down first, or read it anyway with {}\n",
      image, by, option);
}

}  // namespace

TEST_CASE("the command refuses an image that QEMU writes to", "[locks]") {
  const TempDirectory folder;
  make_images(folder);
  const std::string image = folder / "base";
  const std::string copied = folder / "copy";
  const Qemu qemu(folder, image, true);

  const std::string refused = "virt-compact: error: " + in_use(image, qemu.name(), "--force-share");
  for (const auto& arguments :
       std::vector<std::vector<std::string>>{{"info", image}, {"copy", image, copied}}) {
    const auto outcome = tool(arguments);
    CHECK(outcome.exit_code == 1);
    CHECK(outcome.err == refused);
    CHECK(outcome.out.empty());
  }
  // The overlay is refused, too.
  const auto behind = tool({"copy", folder / "top", copied});
  CHECK(behind.exit_code == 1);
  CHECK(behind.err == "virt-compact: error: " + folder / "top" +
                          ": backing file: " + in_use(image, qemu.name(), "--force-share"));
  CHECK_FALSE(exists(copied));
  // The overlay's own information is available.
  CHECK(tool({"info", folder / "top"}).ok());

  CHECK(run({"qemu-img", "info", "-U", image}).ok());
  for (const char* option : {"-U", "--force-share"}) {
    CHECK(tool({"info", option, image}).ok());
    CHECK(tool({"copy", "-q", "--force", option, folder / "top", copied}).ok());
    CHECK(run({"qemu-img", "compare", "-U", folder / "top", copied}).ok());
  }
}

TEST_CASE("the command reads an image that QEMU only reads", "[locks]") {
  const TempDirectory folder;
  make_images(folder);
  const Qemu qemu(folder, folder / "top", false);
  CHECK(tool({"info", folder / "top"}).ok());
  CHECK(tool({"copy", "-q", folder / "top", folder / "copy"}).ok());
  CHECK(run({"qemu-img", "compare", folder / "top", folder / "copy"}).ok());
}

TEST_CASE("a file that QEMU writes to is not replaced", "[locks]") {
  const TempDirectory folder;
  make_images(folder);
  const std::string destination = folder / "disk";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", destination, "1M"});
  struct stat before {};
  REQUIRE(::stat(destination.c_str(), &before) == 0);
  const auto is_untouched = [&] {
    struct stat now {};
    return ::stat(destination.c_str(), &now) == 0 && now.st_ino == before.st_ino;
  };
  {
    const Qemu qemu(folder, destination, true);
    // --force applies only to reading.
    for (const char* option : {"--force", "-U"}) {
      const auto outcome = tool({"copy", "--force", option, folder / "top", destination});
      CHECK(outcome.exit_code == 1);
      CHECK(outcome.err == "virt-compact: error: " + destination + ": is in use by " + qemu.name() +
                               ", which writes to it: shut it down before the file is replaced\n");
      CHECK(is_untouched());
    }
  }
  const Qemu qemu(folder, destination, false);
  CHECK(tool({"copy", "-q", "--force", folder / "top", destination}).ok());
  CHECK_FALSE(is_untouched());
}

TEST_CASE("the server refuses an image that QEMU writes to", "[locks]") {
  const TempDirectory folder;
  make_images(folder);
  const Qemu qemu(folder, folder / "base", true);
  const auto serve = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"nbdkit", "-f", "-U", "-", tool_test::plugin()});
    arguments.insert(arguments.end(), {"--run", "qemu-io -r -f raw -c 'read -P 7 0 64k' \"$uri\""});
    return run(arguments);
  };
  if (support::nbdkit_command().size() == 1) {
    const auto refused = serve({folder / "base"});
    CHECK(refused.exit_code == 1);
    CHECK(refused.err ==
          "nbdkit: error: " + in_use(folder / "base", qemu.name(), "force-share=true"));
    const auto behind = serve({folder / "top", "-r"});
    CHECK(behind.exit_code == 1);
    CHECK(behind.err == "nbdkit: error: " + folder / "top" + ": backing file: " +
                            in_use(folder / "base", qemu.name(), "force-share=true"));
  }
  const NbdServer reader =
      NbdServer::nbdkit({"-r", tool_test::plugin(), folder / "top", "force-share=true"});
  CHECK(NbdClient(reader.socket(), "").read(0, 512) == std::vector<std::byte>(512, std::byte{7}));
  // force-share applies only to reading.
  const NbdServer writer =
      NbdServer::nbdkit({tool_test::plugin(), folder / "top", "force-share=true"});
  CHECK_THROWS(NbdClient(writer.socket(), ""));
  CHECK_THAT(writer.log(), Contains("force-share=true is only for reading: start nbdkit with -r"));
}

TEST_CASE("a server that only reads excludes writers of QEMU, but no readers", "[locks]") {
  const TempDirectory folder;
  make_images(folder);
  {
    const NbdServer server = NbdServer::nbdkit({"-r", tool_test::plugin(), folder / "top"});
    for (const char* name : {"top", "base"}) {
      CHECK(qemu_can_read(folder / name));
      CHECK_FALSE(qemu_can_write(folder / name));
    }
    // Our own readers are permitted, too.
    CHECK(tool({"info", folder / "top"}).ok());
    const NbdServer second = NbdServer::nbdkit({"-r", tool_test::plugin(), folder / "top"});
    CHECK(NbdClient(second.socket(), "").read_only());
  }
  CHECK(qemu_can_write(folder / "base"));
  {
    const NbdServer server =
        NbdServer::nbdkit({"-r", tool_test::plugin(), folder / "top", "force-share=true"});
    CHECK(qemu_can_write(folder / "base"));
    CHECK(qemu_can_write(folder / "top"));
  }
}

TEST_CASE("a server that writes excludes all other processes", "[locks]") {
  const TempDirectory folder;
  make_images(folder);
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=" + (folder / "data"),
          folder / "split", "4M"});
  for (const char* name : {"top", "split"}) {
    const std::string image = folder / name;
    NbdServer server = NbdServer::nbdkit({tool_test::plugin(), image});
    write_as_client(server.uri());
    CHECK_FALSE(qemu_can_read(image));
    CHECK_FALSE(qemu_can_write(image));
    CHECK_FALSE(run({"qemu-img", "info", image}).ok());
    CHECK(run({"qemu-img", "info", "-U", image}).ok());
    const auto refused = tool({"info", image});
    CHECK(refused.err == "virt-compact: error: " +
                             in_use(image, fmt::format("nbdkit (pid {})", server.process().pid()),
                                    "--force-share"));
    // The backing file is only read.
    CHECK(qemu_can_read(folder / "base"));
    if (image == folder / "top") CHECK_FALSE(qemu_can_write(folder / "base"));
    if (image == folder / "split") CHECK_FALSE(tool({"info", "-f", "raw", folder / "data"}).ok());

    server.process().kill();
    CHECK(qemu_can_read(image));
    CHECK(qemu_can_write(image));
  }
}

TEST_CASE("a connection that may write is refused while QEMU reads, and accepted afterwards",
          "[locks]") {
  const TempDirectory folder;
  make_images(folder);
  NbdServer server = NbdServer::nbdkit({tool_test::plugin(), folder / "base"});
  {
    const Qemu qemu(folder, folder / "base", false);
    CHECK_THROWS(NbdClient(server.socket(), ""));
    CHECK_THAT(server.log(), Contains(folder / "base" + ": is in use by " + qemu.name() +
                                      ", which allows no other writer: shut it down"));
    // The attempt has left no lock.
    CHECK(qemu_can_read(folder / "base"));
  }
  CHECK_FALSE(NbdClient(server.socket(), "").read_only());
  CHECK_FALSE(qemu_can_read(folder / "base"));
}

TEST_CASE("a server in the background keeps its locks until it ends", "[locks]") {
  if (support::nbdkit_command().size() != 1) {
    WARN("skipped: nbdkit does not end with a sanitizer's library in it");
    return;
  }
  const TempDirectory folder;
  make_images(folder);
  const std::string image = folder / "base";
  const std::string socket = folder / "socket";
  for (const char* signal : {"TERM", "KILL"}) {
    // nbdkit forks: the first process has ended when this returns.
    run_ok({"nbdkit", "-U", socket, "-P", folder / "pid", tool_test::plugin(), image});
    wait_until("the PID file", [&] { return exists(folder / "pid"); });
    std::string pid;
    std::ifstream(folder / "pid") >> pid;
    CHECK(qemu_can_read(image));
    CHECK_FALSE(qemu_can_write(image));
    write_as_client("nbd+unix:///?socket=" + socket);
    CHECK_FALSE(qemu_can_read(image));
    CHECK_THAT(tool({"info", image}).err, Contains("in use by nbdkit (pid " + pid + ")"));

    run_ok({"kill", "-s", signal, pid});
    wait_until("the end of the server", [&] { return qemu_can_write(image); });
    run_ok({"rm", "-f", socket, folder / "pid"});
  }
}

TEST_CASE("a lock's owner that is not visible is not named", "[locks]") {
  const TempDirectory folder;
  make_images(folder);
  const Qemu qemu(folder, folder / "base", true);
  run_ok({"chmod", "755", folder.path()});
  // Runs as nobody. An ordinary user can see only his own processes, so there is nothing to test.
  if (::geteuid() != 0) {
    WARN("skipped: wants to be root");
    return;
  }
  const auto outcome = run({"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                            tool_test::virt_compact(), "info", folder / "base"});
  CHECK(outcome.exit_code == 1);
  CHECK(outcome.err ==
        "virt-compact: error: " +
            in_use(folder / "base",
                   "a process that is not visible here (of another user, or on another machine)",
                   "--force-share"));
}

}  // namespace vc::interop
