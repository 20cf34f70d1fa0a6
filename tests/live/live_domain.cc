#include "tests/live/live_domain.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "tests/support/command_line.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

namespace vc::live_test {

namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::chrono::seconds kLongestWait{300};

// Calls `is_done` until it returns true. Throws after a long time, as a last resort.
template <typename Condition>
void wait_until(const char* what, Condition is_done) {
  const auto start = steady_clock::now();
  while (!is_done()) {
    if (steady_clock::now() - start > kLongestWait) throw std::runtime_error(what);
    std::this_thread::sleep_for(milliseconds(20));
  }
}

// Returns the state of a process, such as 'T' (stopped) or 'Z'.
char process_state(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string text;
  std::getline(file, text);
  const size_t end = text.rfind(')');
  return end == std::string::npos || end + 2 >= text.size() ? 'X' : text[end + 2];
}

std::string text_of(const std::string& path) {
  const auto bytes = support::read_file(path);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

TestDomain::TestDomain(const tune_test::LibvirtDaemon& daemon, const Options& options)
    : daemon_(daemon), name_(options.name), folder_(daemon.folder() + "/" + options.name) {
  support::run_ok({"mkdir", folder_});
  std::string disks;
  for (unsigned i = 0; i < options.disks; ++i)
    disks += fmt::format(
        "<disk type='file' device='disk'><driver name='qemu' discard='unmap' {}/><source "
        "file='{}'/><target dev='vd{}' bus='virtio'/>{}</disk>",
        options.driver, disk(i), static_cast<char>('a' + i), options.disk_more);
  xml_ = fmt::format(
      "<domain type='qemu'><name>{}</name><memory unit='MiB'>{}</memory><os><type arch='x86_64' "
      "machine='q35'>hvm</type>{}</os><features><acpi/></features>"
      "<on_poweroff>destroy</on_poweroff><on_crash>destroy</on_crash><devices>{}{}"
      "<controller type='usb' model='none'/><memballoon model='none'/></devices></domain>",
      name_, options.megabytes, options.os_more, disks, options.devices_more);
}

std::string TestDomain::disk(unsigned index) const {
  return fmt::format("{}/disk{}.qcow2", folder_, index);
}

void TestDomain::define() const {
  const std::string path = daemon_.folder() + "/" + name_ + ".xml";
  support::write_file(path, xml_);
  daemon_.hand_over();
  daemon_.virsh({"define", path});
}

void TestDomain::start() const {
  daemon_.hand_over();
  daemon_.virsh({"start", name_});
}

std::string TestDomain::state() const {
  std::string text = daemon_.virsh({"domstate", name_});
  return text.substr(0, text.find('\n'));
}

std::string TestDomain::source(unsigned index, bool next) const {
  std::vector<std::string> words{"domblklist", name_};
  if (next) words.emplace_back("--inactive");
  std::istringstream lines(daemon_.virsh(words));
  const std::string target = fmt::format("vd{}", static_cast<char>('a' + index));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    std::string first;
    std::string second;
    if (fields >> first >> second && first == target) return second;
  }
  return "";
}

void TestDomain::write(uint64_t at, uint64_t length, unsigned byte, unsigned index) const {
  const std::string device = fmt::format("/machine/peripheral/virtio-disk{}/virtio-backend", index);
  for (const std::string& command :
       {fmt::format("write -P {} {} {}", byte, at, length), std::string("flush")}) {
    const std::string out = daemon_.virsh({"qemu-monitor-command", name_, "--hmp",
                                           fmt::format("qemu-io -d {} \"{}\"", device, command)});
    if (out.find("rror") != std::string::npos || out.find("failed") != std::string::npos)
      throw std::runtime_error("qemu-io: " + out);
  }
}

void TestDomain::kill_qemu() const {
  const std::string found =
      support::run_ok({"find", daemon_.folder() + "/run", "-name", name_ + ".pid"}).out;
  const pid_t pid = std::atoi(text_of(found.substr(0, found.find('\n'))).c_str());
  if (pid <= 1 || ::kill(pid, SIGKILL) != 0) throw std::runtime_error("no QEMU: " + found);
  wait_until("the domain is still up", [&] { return state() == "shut off"; });
}

std::vector<std::string> TestDomain::files() const {
  return support::list_directory(folder_);
}

support::Outcome TestDomain::tool(const std::vector<std::string>& arguments) const {
  std::vector<std::string> all = arguments;
  all.insert(all.begin() + 1, {"--connect", daemon_.uri()});
  support::RunOptions options;
  options.timeout = kLongestWait;
  return tool_test::run_tool(all, options);
}

namespace {

std::vector<std::string> command_of(std::vector<std::string> arguments,
                                    const std::string& environment, const std::string& uri) {
  const char* const library = std::getenv("VIRT_COMPACT_STOP");
  if (!library) throw std::runtime_error("VIRT_COMPACT_STOP is not set");
  arguments.insert(arguments.begin() + 1, {"--connect", uri});
  std::vector<std::string> command{"env", std::string("LD_PRELOAD=") + library, environment,
                                   tool_test::virt_compact()};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return command;
}

}  // namespace

TestDomain::Stopped::Stopped(const TestDomain& domain, const std::vector<std::string>& arguments,
                             const std::string& environment)
    : log_(domain.folder_ + ".log"),
      child_(command_of(arguments, environment, domain.daemon_.uri()), log_) {
  wait_until("the command did not stop", [&] {
    if (!child_.running())
      throw std::runtime_error("the command has ended instead: " + text_of(log_));
    return process_state(child_.pid()) == 'T';
  });
}

void TestDomain::Stopped::go_on() {
  ::kill(child_.pid(), SIGCONT);
}

std::string TestDomain::Stopped::finish() {
  wait_until("the command does not end", [&] { return !child_.running(); });
  return text_of(log_);
}

}  // namespace vc::live_test
