#include <signal.h>
#include <sys/wait.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/dirty_bits.h"
#include "tests/support/nbd_server.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using nlohmann::json;
using tool_test::run_script;
using tool_test::run_tool;

namespace {

// Makes a disk of 4 MiB: one MiB of data, one of stored zeros, and the rest never written.
void make_disk(const std::string& path) {
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", path, "4M"});
  support::run_ok(
      {"qemu-io", "-c", "write -P 7 0 1M", "-c", "write -P 0 1M 1M", "-f", "qcow2", path});
}

// A server whose disk takes about ten seconds to read.
support::NbdServer slow_server() {
  return support::NbdServer::nbdkit(
      {"-r", "--filter=delay", "--filter=noextents", "pattern", "64M", "rdelay=200ms"});
}

// Waits until a program ends, and leaves it for its parent. Returns the signal that ended it, or 0.
int ending_signal(pid_t pid) {
  siginfo_t info{};
  while (::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT) != 0)
    REQUIRE(errno == EINTR);
  return info.si_code == CLD_KILLED ? info.si_status : 0;
}

std::string text_of(const std::string& path) {
  const auto bytes = support::read_file(path);
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

}  // namespace

TEST_CASE("copy copies a disk, and prints a summary", "[copy_command]") {
  const support::TempDirectory folder;
  make_disk(folder / "disk.qcow2");
  support::RunOptions here;
  here.directory = folder.path();
  const auto outcome = run_tool({"copy", "disk.qcow2", "small.qcow2"}, here);
  INFO(outcome.describe());
  REQUIRE(outcome.ok());
  CHECK(outcome.err.empty());
  CHECK_THAT(outcome.out,
             Catch::StartsWith("disk.qcow2 -> small.qcow2\nSaved ") &&
                 Catch::Contains("\n    data                16\n") &&
                 Catch::Contains("\n    zero                48  left out; 16 of them held "));
  support::run_ok({"qemu-img", "compare", folder / "disk.qcow2", folder / "small.qcow2"});
}

TEST_CASE("an existing destination is kept without --force", "[copy_command]") {
  const support::TempDirectory folder;
  make_disk(folder / "disk.qcow2");
  support::write_file(folder / "small.qcow2", std::string("precious"));
  const auto refused = run_tool({"copy", folder / "disk.qcow2", folder / "small.qcow2"});
  CHECK(refused.exit_code == 1);
  CHECK_THAT(refused.err,
             Catch::StartsWith("virt-compact: error: " + folder / "small.qcow2" + ": ") &&
                 Catch::Contains("--force"));
  CHECK(support::read_file(folder / "small.qcow2").size() == 8);

  CHECK(run_tool({"copy", "--force", folder / "disk.qcow2", folder / "small.qcow2"}).ok());
  support::run_ok({"qemu-img", "compare", folder / "disk.qcow2", folder / "small.qcow2"});
}

TEST_CASE("the summary comes as JSON, also when quiet", "[copy_command]") {
  const support::TempDirectory folder;
  make_disk(folder / "disk.qcow2");
  const auto outcome =
      run_tool({"copy", "-q", "--json", folder / "disk.qcow2", folder / "small.qcow2"});
  REQUIRE(outcome.ok());
  const json summary = json::parse(outcome.out);
  CHECK(summary["virtual-size"] == 4 << 20);
  CHECK(summary["clusters"]["data"] == 16);
  CHECK(summary["clusters"]["zero"] == 48);
  CHECK(summary["clusters"]["found-zero"] == 16);
  const json result = json::parse(
      support::run_ok({"qemu-img", "info", "--output=json", folder / "small.qcow2"}).out);
  CHECK(summary["after"]["blocks"] == result["actual-size"]);

  const auto quiet = run_tool({"copy", "-q", folder / "disk.qcow2", folder / "other.qcow2"});
  CHECK(quiet.ok());
  CHECK(quiet.out.empty());
}

TEST_CASE("a backing file that is kept does not count as saved space", "[copy_command]") {
  const support::TempDirectory folder;
  make_disk(folder / "lowest");
  support::run_ok(
      {"qemu-img", "create", "-q", "-f", "qcow2", "-b", "lowest", "-F", "qcow2", folder / "base"});
  support::run_ok(
      {"qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", folder / "top"});
  support::run_ok({"qemu-io", "-c", "write -P 8 2M 64k", "-f", "qcow2", folder / "top"});
  const auto before_of = [&](const std::vector<std::string>& words) -> uint64_t {
    std::vector<std::string> command{"copy", "--json", "--force", folder / "top", folder / "copy"};
    command.insert(command.end(), words.begin(), words.end());
    const auto outcome = run_tool(command);
    INFO(outcome.describe());
    REQUIRE(outcome.ok());
    return json::parse(outcome.out)["before"]["length"];
  };
  const auto length = [&](const char* name) { return std::filesystem::file_size(folder / name); };
  CHECK(before_of({"-B", "base"}) == length("top"));
  CHECK(before_of({"-B", "lowest"}) == length("top") + length("base"));
  CHECK(before_of({}) == length("top") + length("base") + length("lowest"));
}

TEST_CASE("options set the layout of the destination", "[copy_command]") {
  const support::TempDirectory folder;
  make_disk(folder / "disk.qcow2");
  const auto made = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "copy");
    for (const char* more : {"-q", "--force"}) arguments.emplace_back(more);
    arguments.push_back(folder / "disk.qcow2");
    arguments.push_back(folder / "small.qcow2");
    const auto outcome = run_tool(arguments);
    INFO(outcome.describe());
    REQUIRE(outcome.ok());
    support::run_ok({"qemu-img", "compare", folder / "disk.qcow2", folder / "small.qcow2"});
    return json::parse(
        support::run_ok({"qemu-img", "info", "--output=json", folder / "small.qcow2"}).out);
  };
  const auto compression = [](const json& info) {
    return info["format-specific"]["data"]["compression-type"].get<std::string>();
  };
  CHECK(compression(made({"-c"})) == "zstd");
  CHECK(compression(made({"--compression", "zstd:19"})) == "zstd");
  CHECK(compression(made({"-c", "--compression=zstd:1"})) == "zstd");
  for (const char* zlib : {"zlib", "zlib:1", "zlib:12", "zlib,window=4k", "zlib:6,window=4k"}) {
    INFO(zlib);
    CHECK(compression(made({"--compression", zlib})) == "zlib");
    CHECK(support::run_ok({"qemu-img", "check", "--output=json", folder / "small.qcow2"})
              .out.find("\"compressed-clusters\"") != std::string::npos);
  }
  CHECK(compression(made({"--compression=none"})) == "zlib");
  CHECK(made({"--cluster-size", "4k"})["cluster-size"] == 4096);
  CHECK(made({"--cluster-size=2M"})["cluster-size"] == 2 << 20);
  CHECK(made({"--cluster-size=512", "--cluster-size=1k"})["cluster-size"] == 1024);
  CHECK(made({"--threads=3"})["cluster-size"] == 65536);
}

TEST_CASE("a snapshot can be copied, and a warning says what is not copied", "[copy_command]") {
  const support::TempDirectory folder;
  const std::string disk = folder / "disk.qcow2";
  make_disk(disk);
  support::run_ok({"qemu-img", "convert", "-O", "raw", disk, folder / "then.raw"});
  support::run_ok({"qemu-img", "snapshot", "-c", "then", disk});
  support::run_ok({"qemu-io", "-c", "write -P 9 0 2M", disk});

  const auto now = run_tool({"copy", disk, folder / "now.qcow2"});
  CHECK(now.ok());
  CHECK(now.err == "virt-compact: warning: " + disk +
                       ": its internal snapshot was not copied, only the disk as it is now "
                       "(--with-snapshots)\n");
  CHECK(run_tool({"copy", "-q", disk, folder / "quiet.qcow2"}).err.empty());

  const auto then = run_tool({"copy", "--snapshot=then", disk, folder / "then.qcow2"});
  CHECK(then.ok());
  CHECK(then.err.empty());
  support::run_ok({"qemu-img", "compare", folder / "then.raw", folder / "then.qcow2"});

  support::run_ok({"qemu-img", "snapshot", "-c", "later", disk});
  support::run_ok({"qemu-img", "bitmap", "--add", disk, "dirty"});
  CHECK(run_tool({"copy", disk, folder / "later.qcow2"}).err ==
        "virt-compact: warning: " + disk +
            ": its 2 internal snapshots were not copied, only the disk as it is now "
            "(--with-snapshots)\n"
            "virt-compact: warning: " +
            disk + ": its persistent bitmaps were not copied (--bitmaps copies them)\n");
  const auto with = run_tool({"copy", "--bitmaps", disk, folder / "with.qcow2"});
  CHECK(with.ok());
  CHECK_THAT(with.err, !Catch::Contains("bitmap"));
  CHECK(support::bitmap_names(folder / "with.qcow2") == std::vector<std::string>{"dirty"});
  const auto dropped = run_tool({"copy", "--drop-bitmaps", disk, folder / "dropped.qcow2"});
  CHECK(dropped.ok());
  CHECK_THAT(dropped.err, !Catch::Contains("bitmap"));
  CHECK_THAT(run_tool({"copy", "--skip-broken-bitmaps", disk, folder / "x"}).err,
             Catch::Contains("needs --bitmaps"));
  for (const std::string spool : {"none", folder.path().c_str()}) {
    support::run_ok({"sh", "-c",
                     "\"$VIRT_COMPACT\" copy -q --bitmaps --spool '" + spool + "' '" + disk +
                         "' - > '" + folder / "piped.qcow2" + "'"});
    CHECK(support::read_file(folder / "piped.qcow2") == support::read_file(folder / "with.qcow2"));
  }
  const auto pipe = run_tool({"copy", "--bitmaps", "-O", "raw", disk, "-"});
  CHECK(pipe.exit_code == 1);
  CHECK_THAT(pipe.err, Catch::Contains("only a new QCOW2 image can have persistent bitmaps"));
}

TEST_CASE("-v describes the source", "[copy_command]") {
  const support::TempDirectory folder;
  support::run_ok({"qemu-img", "create", "-q", "-f", "raw", folder / "base.raw", "1M"});
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw",
                   folder / "disk.qcow2"});
  const auto outcome = run_tool({"copy", "-v", folder / "disk.qcow2", folder / "small.qcow2"});
  CHECK_THAT(outcome.err, Catch::EndsWith("\nvirt-compact: " + folder / "disk.qcow2" +
                                          ": qcow2, 1 MiB, clusters of 64 KiB, backing file " +
                                          folder / "base.raw" + "\n"));
}

TEST_CASE("progress goes to standard error in the requested form", "[copy_command]") {
  const support::TempDirectory folder;
  make_disk(folder / "disk.qcow2");
  const auto progress = [&](const std::string& option) {
    const auto outcome =
        run_tool({"copy", "-q", "--force", option, folder / "disk.qcow2", folder / "small.qcow2"});
    CHECK(outcome.ok());
    CHECK(outcome.out.empty());
    return outcome.err;
  };
  // Without a terminal, nothing is shown by default.
  CHECK(progress("--progress=none").empty());
  CHECK(progress("--force").empty());
  CHECK_THAT(progress("-p"), Catch::EndsWith("    (100.00/100%)\r\n"));
  CHECK_THAT(progress("--progress=bar"), Catch::EndsWith("    (100.00/100%)\r\n"));
  const std::string lines = progress("--progress=json");
  const json last = json::parse(lines.substr(lines.rfind('{')));
  CHECK(last["phase"] == "copy");
  CHECK(last["percent"] == 100.0);
  CHECK(last["done"] == 4 << 20);
  CHECK(last["total"] == 4 << 20);
}

TEST_CASE("a terminal shows a bar, which is removed at the end", "[copy_command]") {
  const support::TempDirectory folder;
  const auto server = slow_server();
  // script(1) runs the command on a pseudo-terminal, whose width is set there.
  const auto outcome = run_script(
      "script -qec \"stty cols 60; timeout -s INT 5 '$VIRT_COMPACT' copy --connections=1 "
      "--requests=1 --request-size=1M '$1' '$2'\" /dev/null",
      {server.uri(), folder / "small.qcow2"});
  INFO(outcome.describe());
  // The bar starts at the beginning of the line, to which the cursor returns. It has 59 columns.
  const size_t bar = outcome.out.find("% [");
  REQUIRE(bar != std::string::npos);
  const size_t begin = outcome.out.rfind('\r', bar);
  CHECK(outcome.out.find('\r', bar) - begin == 60);
  CHECK_THAT(outcome.out, Catch::Contains(" left\r"));
  CHECK_THAT(outcome.out, Catch::Contains("\r" + std::string(59, ' ') + "\rvirt-compact: "));
  CHECK(support::list_directory(folder.path()).empty());
}

TEST_CASE("a stop signal ends the copy, which leaves nothing", "[copy_command]") {
  const support::TempDirectory folder;
  const support::TempDirectory logs;
  const auto server = slow_server();
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    // A signal that was ignored at the start (nohup) stays ignored.
    struct sigaction now {};
    if (::sigaction(signal, nullptr, &now) == 0 && now.sa_handler == SIG_IGN) continue;
    CAPTURE(signal);
    const std::string log = logs / std::to_string(signal);
    support::Child child(
        {tool_test::virt_compact(), "copy", "--connections=1", "--requests=1", "--request-size=1M",
         "--progress=json", server.uri(), folder / "small.qcow2"},
        log);
    // Once it reports progress, the copy is running.
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (text_of(log).empty() && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    REQUIRE(::kill(child.pid(), signal) == 0);
    CHECK(ending_signal(child.pid()) == signal);
    const std::string said = text_of(log);
    CHECK_THAT(said, Catch::StartsWith("{\"phase\":\"copy\",\"percent\":"));
    CHECK_THAT(said, Catch::EndsWith("\nvirt-compact: error: " + folder / "small.qcow2" +
                                     ": not written: interrupted\n"));
    CHECK(support::list_directory(folder.path()).empty());
  }
}

TEST_CASE("a signal that is ignored from the start stays ignored", "[copy_command]") {
  const support::TempDirectory folder;
  const auto server = support::NbdServer::nbdkit(
      {"-r", "--filter=delay", "--filter=noextents", "pattern", "4M", "rdelay=200ms"});
  const auto outcome = run_script(
      "trap '' HUP; \"$VIRT_COMPACT\" copy -q --connections=1 --requests=1 --request-size=512k "
      "\"$1\" \"$2\" & sleep 0.5; kill -HUP $!; wait $!; echo $?",
      {server.uri(), folder / "small.qcow2"});
  INFO(outcome.describe());
  CHECK(outcome.out == "0\n");
  CHECK(support::list_directory(folder.path()) == std::vector<std::string>{"small.qcow2"});
}

TEST_CASE("an error while printing the summary does not undo the copy", "[copy_command]") {
  const support::TempDirectory folder;
  make_disk(folder / "disk.qcow2");
  const auto outcome = run_script("\"$VIRT_COMPACT\" copy \"$1\" \"$2\" >/dev/full",
                                  {folder / "disk.qcow2", folder / "small.qcow2"});
  CHECK(outcome.exit_code == 1);
  CHECK(outcome.err == "virt-compact: error: " + folder / "small.qcow2" +
                           ": is complete, but its summary could not be printed: standard output: "
                           "No space left on device\n");
  support::run_ok({"qemu-img", "compare", folder / "disk.qcow2", folder / "small.qcow2"});
}

TEST_CASE("a file size limit of the process is an error", "[copy_command]") {
  const support::TempDirectory folder;
  const support::TempDirectory destination;
  make_disk(folder / "disk.qcow2");
  const auto outcome = run_script("ulimit -f 512; \"$VIRT_COMPACT\" copy \"$1\" \"$2\"",
                                  {folder / "disk.qcow2", destination / "small.qcow2"});
  INFO(outcome.describe());
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err,
             Catch::StartsWith("virt-compact: error: " + destination / "small.qcow2" + ": ") &&
                 Catch::EndsWith("File too large\n"));
  CHECK(support::list_directory(destination.path()).empty());
}

TEST_CASE("an image never gets the number of a standard descriptor", "[copy_command]") {
  const support::TempDirectory folder;
  make_disk(folder / "disk.qcow2");
  const auto outcome = run_script("\"$VIRT_COMPACT\" copy -v \"$1\" \"$2\" <&- >&- 2>&-",
                                  {folder / "disk.qcow2", folder / "small.qcow2"});
  CHECK(outcome.exit_code == 1);  // the summary is lost
  support::run_ok({"qemu-img", "check", "-q", folder / "small.qcow2"});
  support::run_ok({"qemu-img", "compare", folder / "disk.qcow2", folder / "small.qcow2"});
}
