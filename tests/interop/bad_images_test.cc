// Bad input ends in an error that names the file and says what is wrong: never in a signal, never
// in a wait without end, never in much memory, and never in a half-made file.
#include <fmt/format.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <filesystem>
#include <optional>
#include <system_error>

#include "qcow2/chain.h"
#include "tests/interop/bad_images.h"
#include "tests/support/process.h"
#include "tests/support/temp_directory.h"

namespace interop {

using support::TempDirectory;

namespace {

// Opens the image, and reads all of its disk and of its snapshots.
qcow2::Result<void> read_all(const BadImage& bad) {
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
    RETURN_IF_ERROR(disk.read(qcow2::GuestOffset(0), all));
  }
  return {};
}

std::string file_name(const std::string& path) {
  return std::filesystem::path(path).filename().string();
}

// What a message about `bad` lacks; empty: nothing.
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

TEST_CASE("QEMU refuses the same images, but for known ones", "[bad-input]") {
  const TempDirectory folder;
  for (const BadImage& bad : make_bad_images(folder.path())) {
    std::error_code unreadable;
    const auto status = std::filesystem::status(bad.path, unreadable);
    // It would wait for a writer, or read for ever.
    if (std::filesystem::is_fifo(status) || std::filesystem::is_character_file(status)) continue;
    INFO(bad.name << " (" << file_name(bad.path) << ")");
    std::vector<std::string> command{"qemu-img", "convert", "-O",
                                     "raw",      bad.path,  folder / "converted"};
    if (bad.format) command.insert(command.begin() + 2, {"-f", qcow2::to_string(*bad.format)});
    const auto qemu = support::run(command);
    INFO(qemu.describe());
    CHECK(qemu.ok() != bad.qemu_refuses);
  }
}

TEST_CASE("an image with a backing file can be refused for that", "[bad-input]") {
  const TempDirectory folder;
  const std::string base = folder / "base.raw";
  const std::string top = folder / "top.qcow2";
  support::run_ok({"qemu-img", "create", "-q", "-f", "raw", base, "1M"});
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", top});
  qcow2::OpenOptions options;
  options.backing = qcow2::OpenOptions::Backing::kDeny;
  const auto chain = qcow2::Chain::open(top, options);
  REQUIRE_FALSE(chain);
  CHECK(chain.error().message().find("base.raw") != std::string::npos);
  CHECK(chain.error().message().find("top.qcow2") != std::string::npos);
}

}  // namespace interop
