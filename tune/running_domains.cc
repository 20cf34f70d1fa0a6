#include "tune/running_domains.h"

#include <fmt/format.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

#include "tune/domain.h"

namespace tune {

using qcow2::Error;
using qcow2::Result;

namespace {

struct Libvirt {
  std::string name;    // of the connection, for messages
  std::string folder;  // where its sockets are
  // Of the daemon for QEMU alone, and of the one for everything.
  std::vector<std::string> sockets;
};

std::string variable(const char* name) {
  const char* const value = std::getenv(name);
  return value ? value : "";
}

std::vector<Libvirt> libvirts() {
  const std::vector<std::string> names{"virtqemud-sock", "libvirt-sock"};
  std::vector<Libvirt> all{
      {"qemu:///system", "/run/libvirt", {"virtqemud-sock-ro", "libvirt-sock-ro"}}};
  // As GLib finds the folder.
  std::string runtime = variable("XDG_RUNTIME_DIR");
  if (runtime.empty()) runtime = variable("XDG_CACHE_HOME");
  if (runtime.empty() && !variable("HOME").empty()) runtime = variable("HOME") + "/.cache";
  if (!runtime.empty()) all.push_back({"qemu:///session", runtime + "/libvirt", names});
  const std::string caller = variable("SUDO_UID");
  const std::string of_caller = "/run/user/" + caller;
  if (!caller.empty() && of_caller != runtime)
    all.push_back(
        {fmt::format("qemu:///session of user {}", caller), of_caller + "/libvirt", names});
  return all;
}

// Whether somebody listens: to ask libvirt would start a daemon where there is none.
bool is_alive(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return false;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  const bool alive =
      ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  ::close(fd);
  return alive;
}

// For the query of a URI.
std::string escape(const std::string& text) {
  constexpr std::string_view kPlain =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/";
  std::string escaped;
  for (const char c : text)
    if (kPlain.find(c) != std::string_view::npos)
      escaped += c;
    else
      escaped += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  return escaped;
}

void be_silent(void* /*data*/, virErrorPtr /*error*/) {}

struct CloseConnection {
  void operator()(virConnectPtr connection) const { virConnectClose(connection); }
};

// Active ones; frees them all.
class Domains {
 public:
  explicit Domains(virConnectPtr connection)
      : count_(virConnectListAllDomains(connection, &domains_, VIR_CONNECT_LIST_DOMAINS_ACTIVE)) {}
  Domains(const Domains&) = delete;
  Domains& operator=(const Domains&) = delete;
  ~Domains() {
    for (int i = 0; i < count_; ++i) virDomainFree(domains_[i]);
    std::free(domains_);
  }
  int count() const { return count_; }  // -1: an error
  virDomainPtr operator[](int i) const { return domains_[i]; }

 private:
  virDomainPtr* domains_ = nullptr;
  int count_;
};

bool is_file(const std::string& path, const struct stat& wanted) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && status.st_dev == wanted.st_dev &&
         status.st_ino == wanted.st_ino;
}

Error last_error(const std::string& name) {
  const char* const message = virGetLastErrorMessage();
  return Error::protocol(EIO, fmt::format("{}: cannot be asked which disks its machines have: {}",
                                          name, message ? message : "unknown error"));
}

// The domain's name; empty: none has it.
Result<std::string> ask(const Libvirt& libvirt, const std::string& socket,
                        const struct stat& wanted) {
  const std::string path = libvirt.name == "qemu:///system" ? "system" : "session";
  const std::unique_ptr<virConnect, CloseConnection> connection(virConnectOpenReadOnly(
      fmt::format("qemu+unix:///{}?socket={}", path, escape(socket)).c_str()));
  if (!connection) return qcow2::fail(last_error(libvirt.name));
  const Domains domains(connection.get());
  if (domains.count() < 0) return qcow2::fail(last_error(libvirt.name));
  for (int i = 0; i < domains.count(); ++i) {
    const std::unique_ptr<char, void (*)(void*)> xml(virDomainGetXMLDesc(domains[i], 0), std::free);
    // It has ended meanwhile.
    if (!xml) continue;
    const char* const name = virDomainGetName(domains[i]);
    ASSIGN_OR_RETURN(
        const Domain domain,
        read_domain(xml.get(), fmt::format("domain '{}' of {}", name ? name : "?", libvirt.name)));
    for (const DomainDisk& disk : domain.disks)
      for (const std::string& file : disk.files)
        if (is_file(file, wanted)) return std::string(name ? name : "?");
  }
  return std::string();
}

}  // namespace

Result<DiskUse> find_disk_use(const std::string& path) {
  struct stat wanted {};
  if (::stat(path.c_str(), &wanted) != 0) return qcow2::fail(Error::system(errno, path));
  DiskUse use;
  for (const Libvirt& libvirt : libvirts()) {
    for (const std::string& name : libvirt.sockets) {
      const std::string socket = libvirt.folder + "/" + name;
      if (!is_alive(socket)) continue;
      if (virInitialize() != 0) {
        use.remarks.push_back(last_error(libvirt.name).message());
        continue;
      }
      virSetErrorFunc(nullptr, be_silent);
      auto domain = ask(libvirt, socket, wanted);
      if (!domain) {
        use.remarks.push_back(domain.error().message());
      } else if (!domain->empty()) {
        use.domain = fmt::format("domain '{}' of {}", *domain, libvirt.name);
        return use;
      }
    }
  }
  return use;
}

}  // namespace tune
