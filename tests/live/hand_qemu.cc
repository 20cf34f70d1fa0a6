#include "tests/live/hand_qemu.h"

#include <fmt/format.h>

#include <filesystem>
#include <stdexcept>

#include "tests/support/command_line.h"
#include "tests/support/raw_file.h"

namespace vc::live_test {

namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMiB = 1 << 20;

}  // namespace

void HandQemu::make_written_disk() const {
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", disk(), "24M"});
  std::vector<std::string> fill{"qemu-io", "-t", "unsafe", "-f", "qcow2"};
  // In disorder.
  for (unsigned i = 0; i < 16; ++i) {
    const unsigned at = (i * 7) % 16;
    fill.insert(fill.end(), {"-c", fmt::format("write -q -P {} {}M 700k", 10 + at, at)});
  }
  // Clusters that the guest has freed, and that stay in the file.
  fill.insert(fill.end(), {"-c", "write -q -P 200 18M 4M", "-c", "write -q -z 18M 4M"});
  fill.push_back(disk());
  support::run_ok(fill);
  support::run_ok({"qemu-img", "convert", "-O", "raw", disk(), reference()});
}

HandQemu::HandQemu(Style style, const std::vector<std::string>& more,
                   const std::function<void(const std::string& disk)>& make_disk) {
  fs::create_directory(folder_ / "vm");
  if (make_disk)
    make_disk(disk());
  else
    make_written_disk();
  command_ = {"env", "-C", folder_ / "vm", "qemu-system-x86_64", "-accel", "tcg",        "-machine",
              "q35", "-m", "32",           "-display",           "none",   "-nodefaults"};
  for (const std::string& name : {socket(), folder_ / "monitor"})
    command_.insert(command_.end(), {"-qmp", "unix:" + name + ",server=on,wait=off"});
  std::vector<std::string> drive;
  switch (style) {
    case Style::kDrive:
      drive = {"-drive", "if=virtio,id=d0,format=qcow2,discard=unmap,file=disk.qcow2"};
      break;
    case Style::kBlockdev:
      drive = {"-object",   "iothread,id=thread",
               "-blockdev", "driver=file,node-name=file0,auto-read-only=on,filename=" + disk(),
               "-blockdev", "driver=qcow2,node-name=format0,file=file0",
               "-device",   "virtio-blk-pci,drive=format0,id=v0,iothread=thread"};
      break;
    case Style::kFilter:
      drive = {"-object",
               "throttle-group,id=group",
               "-blockdev",
               "driver=throttle,throttle-group=group,node-name=top0,file.driver=qcow2,"
               "file.node-name=format0,file.file.driver=file,file.file.filename=" +
                   disk(),
               "-device",
               "virtio-blk-pci,drive=top0,id=v0"};
      break;
  }
  command_.insert(command_.end(), drive.begin(), drive.end());
  command_.insert(command_.end(), more.begin(), more.end());
  start();
}

void HandQemu::start() {
  const std::string log = folder_ / "log";
  for (const std::string& name : {socket(), folder_ / "monitor"}) fs::remove(name);
  child_.emplace(command_, log);
  wait_until("QEMU does not start", [&] {
    if (!child_->running()) throw std::runtime_error("QEMU has ended: " + text_of(log));
    if (!fs::exists(socket())) return false;
    auto connected = qmp::Client::connect(folder_ / "monitor");
    if (!connected) throw std::runtime_error(connected.error().message());
    monitor_ = std::move(*connected);
    return monitor_ != nullptr;
  });
}

void HandQemu::kill() {
  monitor_.reset();
  child_->kill();
  child_.reset();
}

std::vector<std::string> HandQemu::files() const {
  return support::list_directory(folder_ / "vm");
}

nlohmann::json HandQemu::execute(const std::string& command, nlohmann::json arguments) {
  auto value = monitor_->execute(command, std::move(arguments));
  if (!value) throw std::runtime_error(value.error().message());
  return *value;
}

std::string HandQemu::status() {
  return execute("query-status").at("status").get<std::string>();
}

std::vector<std::string> HandQemu::nodes_of(const std::string& file) {
  std::vector<std::string> names;
  for (const auto& node : execute("query-named-block-nodes", {{"flat", true}})) {
    // A relative name is one in the folder of the disk.
    const auto name = fs::path(disk()).parent_path() / node.at("file").get<std::string>();
    if (name == file) names.push_back(node.at("node-name").get<std::string>());
  }
  return names;
}

void HandQemu::write(uint64_t at, uint64_t length) {
  const unsigned byte = 1 + writes_++ % 250;
  std::string device;
  for (const auto& each : execute("query-block"))
    if (each.contains("qdev")) device = each.at("qdev").get<std::string>();
  for (const std::string& command :
       {fmt::format("write -P {} {} {}", byte, at, length), std::string("flush")}) {
    const auto out =
        execute("human-monitor-command",
                {{"command-line", fmt::format("qemu-io -d {} \"{}\"", device, command)}})
            .get<std::string>();
    if (out.find("rror") != std::string::npos || out.find("failed") != std::string::npos)
      throw std::runtime_error("qemu-io: " + out);
  }
  support::patch_file(reference(), at, std::vector<std::byte>(length, std::byte(byte)));
}

void HandQemu::write_some() {
  write(kMiB + writes_ * 4096, 3 * 4096);
  write(10 * kMiB, 64 << 10);
  write(20 * kMiB + writes_ * 512, 512);
}

std::string HandQemu::complaint() const {
  const auto check = support::run({"qemu-img", "check", "-f", "qcow2", disk()});
  if (check.exit_code != 0 && check.exit_code != 3) return check.describe();
  const auto compare =
      support::run({"qemu-img", "compare", "-f", "qcow2", "-F", "raw", disk(), reference()});
  return compare.ok() ? "" : compare.describe();
}

std::vector<std::string> HandQemu::with_socket(std::vector<std::string> arguments) const {
  arguments.insert(arguments.begin() + 1, {"--qmp", socket()});
  return arguments;
}

support::Outcome HandQemu::tool(const std::vector<std::string>& arguments) const {
  support::RunOptions options;
  options.timeout = kLongestWait;
  return tool_test::run_tool(with_socket(arguments), options);
}

StoppedTool HandQemu::stopped(const std::vector<std::string>& arguments,
                              const std::string& environment) const {
  return StoppedTool(with_socket(arguments), environment, folder_ / "tool.log");
}

}  // namespace vc::live_test
