#include "tests/libvirt/libvirt_daemon.h"

#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "tests/support/raw_file.h"

namespace vc::tune_test {

namespace {

constexpr const char* kNobody = "65534";

}  // namespace

LibvirtDaemon::LibvirtDaemon() {
  for (const char* name : {"run", "config", "cache", "data"})
    support::run_ok({"mkdir", folder_ / name});
  support::write_file(folder_ / "conf",
                      "unix_sock_dir = \"" + folder_ / "run" + "\"\nauth_unix_rw = \"none\"\n");
  // libvirt 11 would raise the limit, for which the daemon lacks the privilege.
  support::run_ok({"mkdir", folder_ / "config/libvirt"});
  support::write_file(folder_ / "config/libvirt/qemu.conf", std::string("max_core = 0\n"));
  if (::chmod(folder_.path().c_str(), 0755) != 0) throw std::runtime_error("chmod");
  hand_over();
  start();
}

void LibvirtDaemon::restart() {
  child_->kill();
  start();
}

void LibvirtDaemon::start() {
  std::vector<std::string> command;
  if (::geteuid() == 0)
    command = {"setpriv", std::string("--reuid=") + kNobody, std::string("--regid=") + kNobody,
               "--clear-groups"};
  for (const std::string& word :
       {std::string("env"), "HOME=" + folder_.path(), "XDG_RUNTIME_DIR=" + folder_ / "run",
        "XDG_CONFIG_HOME=" + folder_ / "config", "XDG_CACHE_HOME=" + folder_ / "cache",
        "XDG_DATA_HOME=" + folder_ / "data", std::string("/usr/sbin/libvirtd"), std::string("-f"),
        folder_ / "conf"})
    command.push_back(word);
  support::write_file(folder_ / "log", std::string());
  child_ = std::make_unique<support::Child>(command, folder_ / "log");
  for (unsigned i = 0; i < 600; ++i) {
    if (::access((folder_ / "run/libvirt-sock").c_str(), F_OK) == 0 &&
        support::run({"virsh", "-c", uri(), "uri"}).ok())
      return;
    if (!child_->running()) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  const auto log = support::read_file(folder_ / "log");
  throw std::runtime_error("libvirtd did not come up: " +
                           std::string(reinterpret_cast<const char*>(log.data()), log.size()));
}

LibvirtDaemon::~LibvirtDaemon() {
  std::istringstream names(support::run({"virsh", "-q", "-c", uri(), "list", "--name"}).out);
  for (std::string name; std::getline(names, name);)
    if (!name.empty()) support::run({"virsh", "-q", "-c", uri(), "destroy", name});
}

std::string LibvirtDaemon::uri() const {
  return "qemu+unix:///session?socket=" + folder_ / "run/libvirt-sock";
}

std::string LibvirtDaemon::virsh(std::vector<std::string> words) const {
  words.insert(words.begin(), {"virsh", "-q", "-c", uri()});
  return support::run_ok(words).out;
}

void LibvirtDaemon::hand_over() const {
  if (::geteuid() == 0)
    support::run_ok({"chown", "-R", std::string(kNobody) + ":" + kNobody, folder_.path()});
}

}  // namespace vc::tune_test
