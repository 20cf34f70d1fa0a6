// Tests optimize --in-place without an appliance: the same file, without what the guest does not
// use.
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/catch_text.h"
#include "tests/optimize/small_guest.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"
#include "tests/tool/commands/encryption/luks_disk.h"

using namespace vc;

using Catch::Contains;
using nlohmann::json;
using optimize_test::SmallGuest;
using support::Outcome;
using support::run_ok;
using support::TempDirectory;

namespace fs = std::filesystem;

namespace {

constexpr uint64_t kMiB = 1 << 20;
using Words = std::vector<std::string>;

// Nothing may boot.
Outcome in_place(Words words) {
  words.insert(words.begin(), {"optimize", "--in-place"});
  support::RunOptions options;
  options.environment = {"LIBGUESTFS_HV=/bin/false", "LIBGUESTFS_BACKEND=direct"};
  return tool_test::run_tool(std::move(words), options);
}

// Returns the report on the only disk.
json report(Words words) {
  words.insert(words.begin(), "--json");
  const auto outcome = in_place(std::move(words));
  INFO(outcome.describe());
  REQUIRE(outcome.ok());
  return json::parse(outcome.out).at("disks").at(0);
}

std::string refused(Words words) {
  const auto outcome = in_place(std::move(words));
  INFO(outcome.describe());
  CHECK(outcome.exit_code == 1);
  return outcome.err;
}

ino_t inode(const std::string& path) {
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  return status.st_ino;
}

void qemu_io(const std::string& path, const Words& commands) {
  Words words{"qemu-io", "-f", "qcow2", "-d", "unmap"};
  for (const std::string& it : commands) words.insert(words.end(), {"-c", it});
  words.push_back(path);
  run_ok(words);
}

// A disk without a filesystem, half of which is free, with a snapshot and a bitmap.
std::string make_states(const TempDirectory& folder, const std::string& options = "") {
  const std::string disk = folder / "states";
  run_ok(
      {"qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=64k" + options, disk, "64M"});
  qemu_io(disk, {"write -q -P 1 8M 8M", "write -q -P 2 0 4M"});
  run_ok({"qemu-img", "snapshot", "-c", "first", disk});
  run_ok({"qemu-img", "bitmap", "--add", disk, "b0"});
  qemu_io(disk, {"write -q -P 3 30M 6M", "write -q -P 4 1M 2M", "write -q -P 5 50M 4M",
                 "discard -q 30M 6M"});
  return disk;
}

std::vector<std::vector<std::byte>> states_of(const std::string& disk) {
  const TempDirectory scratch;
  run_ok({"qemu-img", "convert", "-O", "raw", disk, scratch / "0"});
  run_ok({"qemu-img", "convert", "-O", "raw", "-l", "first", disk, scratch / "1"});
  return {support::read_file(scratch / "0"), support::read_file(scratch / "1")};
}

// Runs the command, and sends `signal` after `delay`. Returns true if the signal came in time.
bool stop_after(const Words& words, int signal, std::chrono::microseconds delay,
                const std::string& log) {
  Words command{tool_test::virt_compact(), "optimize", "--in-place"};
  command.insert(command.end(), words.begin(), words.end());
  support::Child child(command, log);
  std::this_thread::sleep_for(delay);
  const bool in_time = child.running() && ::kill(child.pid(), signal) == 0;
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (child.running()) {
    REQUIRE(std::chrono::steady_clock::now() < limit);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return in_time;
}

}  // namespace

TEST_CASE("optimize --in-place makes the file as short as it has predicted", "[in-place]") {
  const TempDirectory folder;
  const SmallGuest guest(folder);
  const std::string& disk = guest.disk();
  const auto before = support::read_file(disk);
  const ino_t number = inode(disk);
  const std::string way = GENERATE("--trim=auto", "--trim=metadata");
  CAPTURE(way);

  const json predicted = report({way, "--dry-run", disk});
  CHECK((support::read_file(disk) == before));
  CHECK(predicted["in-place"] == true);
  CHECK(predicted["dry-run"] == true);
  CHECK(predicted["discarded"].get<uint64_t>() >= SmallGuest::kFreed);
  CHECK(predicted["free-space"]["appliance"] == false);
  const auto text = in_place({way, "--dry-run", disk});
  CHECK_THAT(text.out,
             Contains("would be") && Contains("to discard") && Contains("Nothing was written"));

  const json done = report({way, disk});
  CHECK(inode(disk) == number);
  CHECK(support::list_directory(folder.path()).size() == 2);
  CHECK(done["before"]["length"] == before.size());
  CHECK(done["after"]["length"] == fs::file_size(disk));
  CHECK(done["discarded"] == predicted["discarded"]);
  CHECK(fs::file_size(disk) + SmallGuest::kFreed <= before.size());
  const auto length = predicted["after"]["length"].get<uint64_t>();
  CHECK(fs::file_size(disk) <= length + 2 * 65536);
  CHECK(length <= fs::file_size(disk) + 2 * 65536);
  CHECK(guest.complaint(true) == "");

  const auto after = support::read_file(disk);
  const json again = report({way, disk});
  CHECK(again["discarded"] == 0);
  CHECK(again["moved"] == 0);
  CHECK((support::read_file(disk) == after));
  CHECK_THAT(in_place({disk}).out, Contains("has no free clusters to fill"));
}

TEST_CASE("optimize --in-place drops files of Windows without a boot", "[in-place]") {
  const TempDirectory folder;
  const std::string raw = folder / "raw";
  run_ok({"sh", "-c", "truncate -s 64M \"$1\" && mkntfs -q -Q -F \"$1\"", "sh", raw});
  std::vector<std::byte> noise(8 * kMiB);
  support::Random(support::base_seed()).fill(noise);
  support::write_file(folder / "noise", noise);
  for (const char* const name : {"pagefile.sys", "swapfile.sys", "kept"})
    run_ok({"ntfscp", "-q", raw, folder / "noise", name});
  const std::string disk = folder / "disk";
  run_ok({"qemu-img", "convert", "-O", "qcow2", raw, disk});
  const json predicted = report({"--drop=pagefile", "--dry-run", disk});
  const std::string way = GENERATE("--trim=auto", "--trim=metadata");
  const json done = report({way, "--drop=pagefile", disk});
  CHECK(done.at("free-space").at("appliance") == false);
  REQUIRE(done.at("free-space").at("dropped").size() == 1);
  CHECK(done.at("free-space").at("dropped").at(0).at("path") == "/pagefile.sys");
  CHECK(done.at("before").at("length").get<uint64_t>() >
        done.at("after").at("length").get<uint64_t>() + 7 * kMiB);
  CHECK(predicted.at("after").at("length") == done.at("after").at("length"));
  run_ok({"qemu-img", "check", "-q", disk});
  run_ok({"qemu-img", "convert", "-O", "raw", disk, raw});
  run_ok({"ntfsfix", "-n", raw});
  for (const char* const name : {"swapfile.sys", "kept"})
    CHECK((run_ok({"ntfscat", raw, name}).out == run_ok({"cat", folder / "noise"}).out));
  // Parts of clusters at both ends of the file may stay.
  const std::string pages = run_ok({"ntfscat", raw, "pagefile.sys"}).out;
  const auto zeros = static_cast<uint64_t>(std::ranges::count(pages, '\0'));
  CHECK(zeros > pages.size() - (256 << 10));
}

TEST_CASE("optimize --in-place works on a block device", "[in-place]") {
  if (::geteuid() != 0) return;
  const TempDirectory folder;
  const SmallGuest guest(folder);
  const auto before = fs::file_size(guest.disk());
  const auto outcome = tool_test::run_script(
      "device=$(losetup -f --show \"$1\") && trap 'losetup -d \"$device\"' EXIT && "
      "ln -s \"$device\" \"$2/link\" && "
      "! \"$VIRT_COMPACT\" optimize --in-place \"$device\" \"$2/link\" 2>\"$2/twice\" && "
      "\"$VIRT_COMPACT\" optimize --in-place --trim=metadata \"$device\" && "
      "\"$VIRT_COMPACT\" optimize --in-place --trim=metadata --dry-run --json \"$device\"",
      {guest.disk(), folder.path()});
  INFO(outcome.describe());
  REQUIRE(outcome.ok());
  CHECK_THAT(run_ok({"cat", folder / "twice"}).out, Contains("is the same file as"));
  CHECK_THAT(outcome.out, Contains("The device keeps its size") && Contains("lvreduce"));
  const auto again = json::parse(outcome.out.substr(outcome.out.find("{\n"))).at("disks").at(0);
  CHECK(again.at("discarded") == 0);
  CHECK(again.at("before").at("length").get<uint64_t>() + SmallGuest::kFreed < before);
  CHECK(again.at("after") == json{{"length", again.at("before").at("length")}});
  CHECK(fs::file_size(guest.disk()) == before);
  CHECK(guest.complaint(true) == "");
}

TEST_CASE("optimize --in-place orders and compresses on request", "[in-place]") {
  const TempDirectory folder;
  const SmallGuest guest(folder);
  const json predicted = report({"--defragment", "-c", "--dry-run", guest.disk()});
  const json done = report({"--defragment", "--compression=zlib", "-m2", guest.disk()});
  CHECK(done["compressed"].get<uint64_t>() >= 4 * kMiB);
  CHECK(guest.complaint(true) == "");
  const auto length = predicted["after"]["length"].get<double>();
  CHECK(static_cast<double>(fs::file_size(guest.disk())) < 1.03 * length);
  CHECK(length < 1.03 * static_cast<double>(fs::file_size(guest.disk())));
}

TEST_CASE("optimize --in-place keeps snapshots, bitmaps and encryption", "[in-place]") {
  const TempDirectory folder;
  const std::string disk = make_states(folder);
  const auto states = states_of(disk);
  const uint64_t before = fs::file_size(disk);
  const Words levels = GENERATE(Words{}, Words{"--shrink"}, Words{"--defragment"},
                                Words{"--defragment", "--compress"});
  Words words{"--no-trim"};
  words.insert(words.end(), levels.begin(), levels.end());
  words.push_back(disk);
  const json done = report(words);
  CHECK_FALSE(done.contains("free-space"));
  CHECK(done["snapshots"] == 1);
  CHECK(fs::file_size(disk) + 5 * kMiB < before);
  run_ok({"qemu-img", "check", "-q", disk});
  CHECK((states_of(disk) == states));
  CHECK_THAT(run_ok({"qemu-img", "info", "--output=json", disk}).out, Contains("\"b0\""));
}

TEST_CASE("optimize --in-place needs the key of an encrypted image", "[in-place]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk";
  tool_test::create_luks(disk, "32M");
  tool_test::qemu_io(disk, {"write -q -P 1 0 8M", "write -q -P 2 16M 3M", "discard -q 1M 6M"});
  const auto content = tool_test::qemu_reads(disk);
  const auto bytes = support::read_file(disk);
  CHECK_THAT(refused({"--no-trim", disk}), Contains("--key"));
  CHECK((support::read_file(disk) == bytes));
  const json done = report({"--trim=metadata", tool_test::key_in_file(folder / "key"), disk});
  CHECK(done["after"]["length"].get<uint64_t>() + 5 * kMiB < bytes.size());
  CHECK(tool_test::qemu_check(disk).ok());
  CHECK((tool_test::qemu_reads(disk) == content));
}

TEST_CASE("optimize --in-place repairs only on request", "[in-place]") {
  const TempDirectory folder;
  const SmallGuest guest(folder);
  const std::string& disk = guest.disk();
  const uint64_t length = fs::file_size(disk);
  SECTION("marked dirty") {
    support::patch_file(disk, 79, std::vector{std::byte{1}});
  }
  SECTION("a refcount is too low") {
    support::patch_file(disk, 2 * 65536, std::vector(2, std::byte{0}));
  }
  const auto bytes = support::read_file(disk);
  CHECK_THAT(refused({disk}), Contains("--repair"));
  CHECK_THAT(refused({"--dry-run", disk}), Contains("--repair"));
  CHECK((support::read_file(disk) == bytes));
  const auto outcome = in_place({"--repair", disk});
  INFO(outcome.describe());
  CHECK(outcome.ok());
  CHECK_THAT(outcome.err, Contains("--apply-undo"));
  CHECK(guest.complaint(true) == "");
  CHECK(fs::file_size(disk) + SmallGuest::kFreed <= length);
}

TEST_CASE("optimize --in-place trims an external data file, and does not compress it",
          "[in-place]") {
  const TempDirectory folder;
  const SmallGuest guest(folder, "data_file=" + (folder / "data"));
  const auto bytes = support::read_file(guest.disk());
  const auto data = support::read_file(folder / "data");
  CHECK_THAT(refused({"-c", guest.disk()}), Contains("external data file"));
  CHECK((support::read_file(guest.disk()) == bytes));
  CHECK((support::read_file(folder / "data") == data));
  const json predicted = report({"--dry-run", guest.disk()});
  CHECK((support::read_file(folder / "data") == data));
  const json done = report({"--defragment", guest.disk()});
  CHECK(done["discarded"] == predicted["discarded"]);
  CHECK(done["discarded"].get<uint64_t>() >= SmallGuest::kFreed);
  CHECK(guest.complaint(true) == "");
}

TEST_CASE("optimize --in-place refuses what it cannot do", "[in-place]") {
  const TempDirectory folder;
  const std::string disk = make_states(folder);
  const auto bytes = support::read_file(disk);
  for (const char* const option :
       {"--cluster-size=1M", "--options=compat=1.1", "--profile=archive", "--output-format=raw",
        "--reflink=auto", "--drop-snapshots", "--drop-bitmaps", "--backup=.old", "--no-backup",
        "--minimum-gain=1M", "--force", "--rate-limit=1M", "--sparse=4k", "--decrypt", "--tmp=."})
    CHECK_THAT(refused({option, disk}),
               Contains(std::string(option).substr(0, std::string(option).find('=')) +
                        " and --in-place: DISK itself is changed"));
  CHECK_THAT(refused({"-o", folder / "out", disk}), Contains("omit OUT"));
  CHECK_THAT(refused({"--backing", folder / "base", disk}), Contains("omit BASE"));
  CHECK_THAT(refused({"--live", disk}), Contains("shut the guest down"));
  CHECK_THAT(refused({"--format=raw", disk}), Contains("only QCOW2"));
  CHECK_THAT(refused({"--compression=none", disk}), Contains("nothing is decompressed"));
  CHECK_THAT(refused({"-m2", disk}), Contains("only --compress"));
  CHECK_THAT(tool_test::run_tool({"optimize", "--shrink", disk}).err, Contains("needs --in-place"));
  CHECK_THAT(refused({"/dev/null"}), Contains("neither a regular file nor a block device"));
  CHECK_THAT(refused({"nbd://localhost"}), Contains("only files"));
  support::write_file(folder / "raw", std::vector<std::byte>(1 << 16));
  CHECK_THAT(refused({folder / "raw"}), Contains("is a raw file"));
  CHECK_THAT(refused({"--compression=zstd", disk}), Contains("its header says zlib"));

  const std::string overlay = folder / "overlay";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", disk, "-F", "qcow2", overlay});
  CHECK_THAT(refused({disk}), Contains("is the backing file of"));
  CHECK((support::read_file(disk) == bytes));
  CHECK(in_place({"--trim=none", disk}).ok());

  const std::string socket = folder / "socket";
  support::Child server({"qemu-nbd", "-t", "-k", socket, "-f", "qcow2", overlay}, folder / "log");
  while (server.running() && !fs::exists(socket)) usleep(10000);
  REQUIRE(server.running());
  CHECK_THAT(refused({"--trim=none", overlay}), Contains("is in use by qemu-nbd"));
  CHECK_THAT(refused({"--trim=none", disk}), Contains("in use"));
}

TEST_CASE("optimize --in-place goes on after a disk that failed", "[in-place]") {
  const TempDirectory folder;
  const SmallGuest guest(folder);
  const std::string states = make_states(folder);
  support::patch_file(states, 79, std::vector{std::byte{2}});
  const auto outcome = in_place({"--json", states, guest.disk()});
  INFO(outcome.describe());
  CHECK(outcome.exit_code == 1);
  const json all = json::parse(outcome.out);
  CHECK(all["failed"] == 1);
  CHECK_THAT(all["disks"][0]["error"].get<std::string>(), Contains("marked corrupt"));
  CHECK(all["disks"][1]["discarded"].get<uint64_t>() >= SmallGuest::kFreed);
  CHECK(guest.complaint(true) == "");
}

TEST_CASE("optimize --in-place leaves a sound image whenever it is stopped, and goes on",
          "[in-place]") {
  const uint64_t seed = support::base_seed();
  INFO("VIRT_COMPACT_SEED=" << seed);
  support::Random random(seed);
  const TempDirectory folder;
  const SmallGuest guest(folder);
  const std::string& disk = guest.disk();
  const Words words{"-q", "--defragment", "-c", disk};
  const double whole = in_place(words).elapsed.count();
  unsigned stopped = 0;
  const uint64_t rounds = support::iterations(16);
  for (uint64_t round = 0; round < rounds; ++round) {
    guest.restore();
    const ino_t number = inode(disk);
    const int signal = random.pick(std::vector<int>{SIGKILL, SIGKILL, SIGINT, SIGTERM});
    const std::chrono::microseconds delay(random.below(static_cast<uint64_t>(whole * 1.1e6) + 1));
    CAPTURE(round, signal, delay.count());
    stopped += stop_after(words, signal, delay, folder / ".log");
    CHECK(guest.complaint(signal != SIGKILL) == "");
    const auto again = in_place(words);
    INFO(again.describe());
    REQUIRE(again.ok());
    CHECK(guest.complaint(true) == "");
    CHECK(inode(disk) == number);
    CHECK(fs::file_size(disk) < 10 * kMiB);
  }
  CHECK(stopped > rounds / 4);
}

TEST_CASE("optimize --in-place says what a stopped run has gained", "[in-place]") {
  const TempDirectory folder;
  const SmallGuest guest(folder);
  // The signal comes when the data moves.
  const auto outcome = tool_test::run_script(
      "\"$VIRT_COMPACT\" optimize --in-place -c --progress=json \"$1\" >\"$2\" 2>\"$3\" & "
      "until grep -q '\"copy\"' \"$3\"; do kill -0 $! || break; done; kill -INT $!; wait $!",
      {guest.disk(), folder / ".out", folder / ".err"});
  INFO(outcome.describe());
  const auto bytes = support::read_file(folder / ".out");
  const std::string out(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  CAPTURE(out);
  CHECK(guest.complaint(true) == "");
  CHECK_THAT(out, Contains("shorter"));
  CHECK(in_place({"-c", guest.disk()}).ok());
  CHECK(guest.complaint(true) == "");
}
