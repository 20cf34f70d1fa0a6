#include "tests/live/live_domain.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <sstream>
#include <stdexcept>

#include "tests/support/command_line.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

namespace vc::live_test {

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

pid_t TestDomain::qemu() const {
  const std::string found =
      support::run_ok({"find", daemon_.folder() + "/run", "-name", name_ + ".pid"}).out;
  const pid_t pid = std::atoi(text_of(found.substr(0, found.find('\n'))).c_str());
  if (pid <= 1) throw std::runtime_error("no QEMU: " + found);
  return pid;
}

void TestDomain::kill_qemu() const {
  if (::kill(qemu(), SIGKILL) != 0) throw std::runtime_error("QEMU cannot be killed");
  wait_until("the domain is still up", [&] { return state() == "shut off"; });
}

std::vector<std::string> TestDomain::files() const {
  return support::list_directory(folder_);
}

std::vector<std::string> TestDomain::connected(std::vector<std::string> arguments) const {
  arguments.insert(arguments.begin() + 1, {"--connect", daemon_.uri()});
  return arguments;
}

support::Outcome TestDomain::tool(const std::vector<std::string>& arguments) const {
  support::RunOptions options;
  options.timeout = kLongestWait;
  return tool_test::run_tool(connected(arguments), options);
}

TestDomain::Stopped::Stopped(const TestDomain& domain, const std::vector<std::string>& arguments,
                             const std::string& environment)
    : StoppedTool(domain.connected(arguments), environment, domain.folder_ + ".log") {}

}  // namespace vc::live_test
