// Bad input causes an error that names the file and the reason. It never causes a signal, an
// endless wait, much memory, or an incomplete file.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <thread>

#include "qcow2/read/chain.h"
#include "tests/catch.h"
#include "tests/interop/bad_images.h"
#include "tests/support/command_line.h"
#include "tests/support/nbd_server.h"
#include "tests/support/process.h"
#include "tests/support/temp_directory.h"

namespace vc::interop {

using support::NbdServer;
using support::TempDirectory;

namespace {

// Opens the image, and reads its disk and its snapshots completely.
Result<void> read_all(const BadImage& bad) {
  qcow2::OpenOptions options;
  options.format = bad.format;
  ASSIGN_OR_RETURN(const auto chain, qcow2::Chain::open(bad.path, options));
  std::vector<qcow2::Disk> disks{chain.disk()};
  if (chain.image()) {
    for (const qcow2::Snapshot& snapshot : chain.image()->snapshots()) {
      ASSIGN_OR_RETURN(auto disk, chain.snapshot(snapshot.name));
      disks.push_back(std::move(disk));
    }
  }
  for (const qcow2::Disk& disk : disks) {
    std::vector<std::byte> all(disk.size());
    RETURN_IF_ERROR(disk.read(GuestOffset(0), all));
  }
  return {};
}

std::string file_name(const std::string& path) {
  return std::filesystem::path(path).filename().string();
}

// Returns what a message about `bad` lacks. Empty: nothing.
std::string message_complaint(const BadImage& bad, const std::string& message) {
  const std::string file = bad.names_file.empty() ? file_name(bad.path) : bad.names_file;
  if (message.find(file) == std::string::npos) return "it does not name " + file;
  if (message.find(bad.says) == std::string::npos) return "it does not say '" + bad.says + "'";
  if (std::any_of(message.begin(), message.end(),
                  [](unsigned char c) { return c < 0x20 || c == 0x7f; }))
    return "it holds control characters";
  return {};
}

}  // namespace

TEST_CASE("the engine refuses bad images with the reason", "[bad-input]") {
  const TempDirectory folder;
  for (const BadImage& bad : make_bad_images(folder.path())) {
    INFO(bad.name << " (" << file_name(bad.path) << ")");
    const auto begin = std::chrono::steady_clock::now();
    const auto result = read_all(bad);
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
    CHECK(elapsed.count() < 10);
    CHECK_FALSE(result);
    if (result) continue;
    INFO(result.error().message());
    CHECK(message_complaint(bad, result.error().message()) == "");
    CHECK(result.error().errnum() != 0);
  }
}

TEST_CASE("QEMU refuses the same images, except for known differences", "[bad-input]") {
  const TempDirectory folder;
  for (const BadImage& bad : make_bad_images(folder.path())) {
    if (!bad.ask_qemu) continue;
    INFO(bad.name << " (" << file_name(bad.path) << ")");
    std::vector<std::string> command{"qemu-img", "convert", "-O",
                                     "raw",      bad.path,  folder / "converted"};
    if (bad.format) command.insert(command.begin() + 2, {"-f", qcow2::to_string(*bad.format)});
    support::RunOptions options;
    options.timeout = std::chrono::seconds(20);
    const auto qemu = support::run(command, options);
    INFO(qemu.describe());
    CHECK_FALSE(qemu.timed_out);
    CHECK(qemu.ok() != bad.qemu_refuses);
  }
}

TEST_CASE("an image can be refused because of its backing file", "[bad-input]") {
  const TempDirectory folder;
  const std::string base = folder / "base.raw";
  const std::string top = folder / "top.qcow2";
  support::run_ok({"qemu-img", "create", "-q", "-f", "raw", base, "1M"});
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", top});
  qcow2::OpenOptions options;
  options.trust.names.backing = qcow2::NameRule::kDeny;
  const auto chain = qcow2::Chain::open(top, options);
  REQUIRE_FALSE(chain);
  CHECK(chain.error().message().find("base.raw") != std::string::npos);
  CHECK(chain.error().message().find("top.qcow2") != std::string::npos);
}

namespace {

// Sanitizers need more memory and time.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#elif defined(__has_feature)
constexpr bool kSanitized = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
constexpr bool kSanitized = false;
#endif

constexpr uint64_t kMemory = 128 << 20;  // most memory for an error, bytes

// Returns what is wrong with the result of a command that must fail. Empty: nothing.
std::string failure_complaint(const support::Outcome& outcome) {
  if (outcome.timed_out) return "it does not end";
  if (outcome.signal != 0) return "it ended by a signal";
  if (outcome.exit_code != 1) return fmt::format("its exit code is {}", outcome.exit_code);
  if (!outcome.err.starts_with("virt-compact: error: ")) return "its error begins in another way";
  if (std::count(outcome.err.begin(), outcome.err.end(), '\n') != 1 || outcome.err.back() != '\n')
    return "its error is not one line";
  if (!kSanitized && outcome.peak_memory > kMemory) return "it took much memory";
  return {};
}

support::RunOptions briefly() {
  support::RunOptions options;
  options.timeout = std::chrono::seconds(kSanitized ? 60 : 15);
  return options;
}

}  // namespace

TEST_CASE("the command reports a bad image in one line", "[bad-input]") {
  const TempDirectory folder;
  const TempDirectory target;
  for (const BadImage& bad : make_bad_images(folder.path())) {
    INFO(bad.name << " (" << file_name(bad.path) << ")");
    for (const bool compress : {false, true}) {
      std::vector<std::string> command{tool_test::virt_compact(), "copy", bad.path,
                                       target / "copy.qcow2"};
      if (bad.format) command.insert(command.begin() + 2, {"-f", qcow2::to_string(*bad.format)});
      if (compress) command.push_back("--compression=zstd");
      const auto copied = support::run(command, briefly());
      INFO(support::shell_line(command) << ": " << copied.describe());
      CHECK(failure_complaint(copied) == "");
      CHECK(message_complaint(bad, copied.err.substr(0, copied.err.find('\n'))) == "");
      CHECK(support::list_directory(target.path()).empty());
    }

    // `info` may ignore the damage, but then it succeeds.
    const auto info = support::run({tool_test::virt_compact(), "info", bad.path}, briefly());
    INFO("info: " << info.describe());
    auto judged = info;
    // Warnings about incomplete figures may precede the error.
    while (judged.err.starts_with("virt-compact: warning: "))
      judged.err.erase(0, judged.err.find('\n') + 1);
    if (!info.ok()) CHECK(failure_complaint(judged) == "");
  }
}

TEST_CASE("the command fails without permission to read the image", "[bad-input]") {
  TempDirectory folder;
  namespace fs = std::filesystem;
  fs::permissions(folder.path(), fs::perms::owner_all | fs::perms::group_exec |
                                     fs::perms::others_exec | fs::perms::group_read |
                                     fs::perms::others_read);
  const std::string image = folder / "secret.qcow2";
  const std::string readable = folder / "readable.qcow2";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", image, "1M"});
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", readable, "1M"});
  fs::permissions(image, fs::perms::none);
  fs::permissions(readable, fs::perms::owner_read | fs::perms::others_read);
  fs::create_directory(folder / "closed");
  fs::permissions(folder / "closed", fs::perms::owner_read | fs::perms::owner_exec |
                                         fs::perms::others_read | fs::perms::others_exec);
  // Copies the command, since user nobody may have no access to the build folder.
  const std::string command = folder / "virt-compact";
  fs::copy_file(tool_test::virt_compact(), command);
  std::vector<std::string> as_nobody;
  if (::geteuid() == 0) as_nobody = {"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"};
  const auto run = [&](const std::vector<std::string>& arguments) {
    auto line = as_nobody;
    line.push_back(command);
    line.insert(line.end(), arguments.begin(), arguments.end());
    return support::run(line, briefly());
  };

  const auto unreadable = run({"copy", image, folder / "closed/copy.qcow2"});
  INFO(unreadable.describe());
  CHECK(failure_complaint(unreadable) == "");
  CHECK(unreadable.err.find("secret.qcow2: Permission denied") != std::string::npos);

  const auto unwritable = run({"copy", readable, folder / "closed/copy.qcow2"});
  INFO(unwritable.describe());
  CHECK(failure_complaint(unwritable) == "");
  CHECK(unwritable.err.find("Permission denied") != std::string::npos);
  CHECK(unwritable.err.find("closed") != std::string::npos);
  CHECK(support::list_directory(folder / "closed").empty());
}

TEST_CASE("a copy fails if its server dies during the copy", "[bad-input]") {
  const TempDirectory target;
  // The copy cannot end before the test does: rates are in bits.
  NbdServer server = NbdServer::nbdkit({"--filter=rate", "random", "size=256M", "rate=80M"});
  std::jthread killer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(800));
    server.process().kill();
  });
  const auto outcome = support::run(
      {tool_test::virt_compact(), "copy", server.uri(), target / "copy.qcow2"}, briefly());
  killer.join();
  INFO(outcome.describe());
  CHECK(failure_complaint(outcome) == "");
  CHECK(outcome.err.find(server.socket()) != std::string::npos);
  CHECK(support::list_directory(target.path()).empty());
}

TEST_CASE("a copy fails if there is no server", "[bad-input]") {
  const TempDirectory target;
  const auto outcome =
      support::run({tool_test::virt_compact(), "copy",
                    "nbd+unix:///?socket=" + (target / "nothing"), target / "copy.qcow2"},
                   briefly());
  INFO(outcome.describe());
  CHECK(failure_complaint(outcome) == "");
  CHECK(outcome.err.find(target / "nothing") != std::string::npos);
  CHECK(support::list_directory(target.path()).empty());
}

}  // namespace vc::interop
