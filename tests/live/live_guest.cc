#include "tests/live/live_guest.h"

#include <fmt/format.h>
#include <sys/utsname.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "tests/live/pattern.h"
#include "tests/support/raw_file.h"

namespace vc::live_test {

namespace {

namespace fs = std::filesystem;

// A guest flushes about each tenth operation.
constexpr uint32_t kMostUnflushed = 500;

// In the order in which they need each other. Which of the first two needs the other depends on the
// version of Linux.
constexpr const char* kModules[] = {
    "virtio_ring",           "virtio",     "virtio_ring", "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev", "virtio_pci", "virtio_blk",  "virtio_console"};

// Appends a member to an archive in cpio's format "newc".
void add_member(std::string& archive, const std::string& name, unsigned mode,
                const std::string& content) {
  static unsigned inode = 0;
  archive += fmt::format(
      "070701{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}",
      ++inode, mode, 0, 0, 1, 0, content.size(), 0, 0, 0, 0, name.size() + 1, 0);
  const auto pad = [&] { archive.append((4 - archive.size() % 4) % 4, '\0'); };
  archive += name;
  archive += '\0';
  pad();
  archive += content;
  pad();
}

// Returns the kernel of this machine, or of another version that is installed: a container's
// machine may run a kernel of its own.
std::string find_kernel() {
  std::vector<std::string> found;
  for (const auto& entry : fs::directory_iterator("/boot"))
    if (entry.path().filename().string().starts_with("vmlinuz-"))
      found.push_back(entry.path().filename().string().substr(8));
  std::sort(found.begin(), found.end());
  for (const std::string& version : found)
    if (fs::exists("/lib/modules/" + version)) return version;
  throw std::runtime_error("no kernel with modules: install linux-image-cloud-amd64");
}

// Returns the content of a module; empty: it is a part of the kernel.
std::string module(const std::string& version, const std::string& name) {
  for (const auto& entry :
       fs::recursive_directory_iterator("/lib/modules/" + version + "/kernel/drivers")) {
    const std::string file = entry.path().filename().string();
    if (file == name + ".ko") return text_of(entry.path().string());
    if (file == name + ".ko.xz") return support::run_ok({"xz", "-dc", entry.path().string()}).out;
  }
  return "";
}

}  // namespace

GuestFiles::GuestFiles(const std::string& folder, const std::string& disk, unsigned more)
    : serial_(serial_in(folder)), disk_(disk) {
  make_initrd(folder);
  make_disk(more);
  support::write_file(serial_, std::string());
}

GuestFiles GuestFiles::made_before(const std::string& folder, const std::string& disk) {
  return GuestFiles(Names{serial_in(folder), disk});
}

LiveGuest::LiveGuest(const tune_test::LibvirtDaemon& daemon, const std::string& arguments,
                     unsigned more)
    : domain_(daemon, options(daemon.folder(), arguments)),
      files_(daemon.folder(), domain_.disk(), more) {
  domain_.define();
  domain_.start();
  work(3);
}

TestDomain::Options LiveGuest::options(const std::string& folder, const std::string& arguments) {
  TestDomain::Options options;
  options.megabytes = 192;
  options.os_more =
      fmt::format("<kernel>{}/kernel</kernel><initrd>{}/initrd</initrd><cmdline>{} {}</cmdline>",
                  folder, folder, GuestFiles::kernel_arguments(), arguments);
  options.devices_more = fmt::format(
      "<serial type='file'><source path='{}/serial'/><target port='0'/></serial>"
      "<serial type='file'><source path='{}/console'/><target port='1'/></serial>"
      "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>",
      folder, folder);
  return options;
}

void GuestFiles::make_initrd(const std::string& folder) const {
  const char* const init = std::getenv("VIRT_COMPACT_GUEST_INIT");
  if (!init) throw std::runtime_error("VIRT_COMPACT_GUEST_INIT is not set");
  const std::string version = find_kernel();
  fs::copy_file("/boot/vmlinuz-" + version, folder + "/kernel");
  std::string archive;
  add_member(archive, "mod", 0040755, "");
  add_member(archive, "init", 0100755, text_of(init));
  for (size_t i = 0; i < std::size(kModules); ++i)
    add_member(archive, fmt::format("mod/{:02}.ko", i), 0100644, module(version, kModules[i]));
  add_member(archive, "TRAILER!!!", 0, "");
  support::write_file(folder + "/initrd", archive);
}

void GuestFiles::make_disk(unsigned more) const {
  const uint64_t size = kDiskBytes + (uint64_t{more} << 20);
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", disk_, std::to_string(size)});
  std::vector<std::string> command{"qemu-io", "-t", "unsafe", "-f", "qcow2"};
  // In disorder.
  for (unsigned i = 0; i < 16; ++i) {
    const unsigned at = (i * 7) % 16;
    command.insert(command.end(),
                   {"-c", fmt::format("write -q -P {} {}M 1M", 100 + at, 32 + at), "-c",
                    fmt::format("write -q -P {} {}M 2M", 200 + at, 64 + 2 * at)});
  }
  for (uint64_t at = kDiskBytes; at < size; at += 64 << 20)
    command.insert(command.end(), {"-c", fmt::format("write -q -P 7 {} {}", at,
                                                     std::min<uint64_t>(64 << 20, size - at))});
  command.push_back(disk_);
  support::run_ok(command);
}

std::vector<std::string> GuestFiles::lines() const {
  std::istringstream text(text_of(serial_));
  std::vector<std::string> lines;
  for (std::string line; std::getline(text, line);) {
    // An incomplete line is not one of the guest's.
    if (text.eof()) break;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    lines.push_back(line);
  }
  return lines;
}

std::vector<std::string> GuestFiles::lines(const std::string& word) const {
  std::vector<std::string> found = lines();
  std::erase_if(found, [&](const std::string& line) { return !line.starts_with(word); });
  return found;
}

void GuestFiles::work(unsigned flushes) const {
  const size_t before = lines("S ").size();
  const auto start = std::chrono::steady_clock::now();
  while (lines("S ").size() < before + flushes) {
    if (std::chrono::steady_clock::now() - start > kLongestWait)
      throw std::runtime_error("the guest does not work: " +
                               fmt::format("{}", fmt::join(lines(), "\n")));
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

void LiveGuest::shut_down() const {
  domain_.virsh({"shutdown", domain_.name(), "--mode", "agent"});
  const auto start = std::chrono::steady_clock::now();
  while (domain_.state() != "shut off") {
    if (std::chrono::steady_clock::now() - start > kLongestWait)
      throw std::runtime_error("the guest does not end");
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

std::string GuestFiles::complaint() const {
  const auto check = support::run({"qemu-img", "check", "-f", "qcow2", disk_});
  if (check.exit_code != 0 && check.exit_code != 3) return check.describe();
  if (const auto bad = lines("BAD"); !bad.empty()) return bad.front();
  const std::string raw = serial_ + ".raw";
  support::run_ok({"qemu-img", "convert", "-O", "raw", disk_, raw});
  const support::RawFile file(raw);

  std::vector<State> states(kBlocks);
  const auto apply = [](std::vector<State>& to, uint32_t number) {
    const Operation it = operation(number);
    if (it.kind == Kind::kRead || it.kind == Kind::kFlush) return;
    for (uint32_t i = 0; i < it.count; ++i) to[it.first + i] = {it.kind, number};
  };
  const auto ends = lines("END ");
  const auto flushed = lines("S ");
  const uint32_t sure = !ends.empty() ? static_cast<uint32_t>(std::stoul(ends.back().substr(4)))
                        : flushed.empty()
                            ? 0
                            : static_cast<uint32_t>(std::stoul(flushed.back().substr(2))) + 1;
  for (uint32_t i = 0; i < sure; ++i) apply(states, i);
  std::vector<std::vector<State>> others(kBlocks);
  for (uint32_t i = sure; ends.empty() && i < sure + kMostUnflushed; ++i) {
    const Operation it = operation(i);
    if (it.kind != Kind::kRead && it.kind != Kind::kFlush)
      for (uint32_t k = 0; k < it.count; ++k) others[it.first + k].push_back({it.kind, i});
  }
  for (uint32_t i = 0; i < kBlocks; ++i) {
    const auto block = file.read(kPatternStart + uint64_t{i} * kBlockSize, kBlockSize);
    const auto* const bytes = reinterpret_cast<const unsigned char*>(block.data());
    const auto fits = [&](const State& state) { return matches(bytes, state, i); };
    if (!fits(states[i]) && std::none_of(others[i].begin(), others[i].end(), fits))
      return fmt::format("block {} is not what the guest wrote", i);
  }
  for (unsigned i = 0; i < 16; ++i)
    for (const std::byte byte : file.read(kConstantStart + i * (1 << 20), 1 << 20))
      if (byte != std::byte(100 + i)) return fmt::format("constant MiB {} has changed", i);
  fs::remove(raw);
  return "";
}

}  // namespace vc::live_test
