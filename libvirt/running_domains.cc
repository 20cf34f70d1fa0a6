#include "libvirt/running_domains.h"

#include <fmt/format.h>
#include <libvirt/libvirt.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

#include "libvirt/connection.h"
#include "libvirt/domain.h"
#include "storage/descriptor.h"
#include "storage/directory.h"

namespace vc::libvirt {

namespace {

struct Libvirt {
  std::string name;    // of the connection, for messages
  std::string folder;  // folder of its sockets
  // Sockets of the QEMU daemon and of the monolithic daemon.
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
  // Same lookup as GLib.
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

// Returns true if a daemon listens. Connecting through libvirt would start a daemon.
bool is_alive(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return false;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const Descriptor fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  return fd &&
         ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

// Escapes text for the query of a URI.
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

Error cannot_ask(const Libvirt& libvirt) {
  return last_error(libvirt.name + ": cannot get the disks of its domains");
}

struct Owner {
  std::string name;  // empty: no domain uses the file
  bool saved = false;
};

std::string uri_of(const Libvirt& libvirt, const std::string& socket) {
  const std::string path = libvirt.name == "qemu:///system" ? "system" : "session";
  return fmt::format("qemu+unix:///{}?socket={}", path, escape(socket));
}

Result<Owner> ask(const Libvirt& libvirt, const std::string& socket, const FileIdentity& wanted) {
  const Connection connection(virConnectOpenReadOnly(uri_of(libvirt, socket).c_str()));
  if (!connection) return fail(cannot_ask(libvirt));
  const DomainList domains(connection, DomainList::Which::kAll);
  if (domains.count() < 0) return fail(cannot_ask(libvirt));
  for (int i = 0; i < domains.count(); ++i) {
    const bool saved = virDomainIsActive(domains[i]) == 0;
    // A domain that is shut off rereads the disk at its next start.
    if (saved && virDomainHasManagedSaveImage(domains[i], 0) != 1) continue;
    const std::unique_ptr<char, void (*)(void*)> xml(virDomainGetXMLDesc(domains[i], 0), std::free);
    // The domain has ended meanwhile.
    if (!xml) continue;
    const char* const name = virDomainGetName(domains[i]);
    ASSIGN_OR_RETURN(
        const Domain domain,
        read_domain(xml.get(), fmt::format("domain '{}' of {}", name ? name : "?", libvirt.name)));
    for (const DomainDisk& disk : domain.disks)
      for (const std::string& file : disk.files)
        if (const auto found = FileIdentity::at(file); found && *found == wanted)
          return Owner{name ? name : "?", saved};
  }
  return Owner{};
}

}  // namespace

Result<DiskUse> find_disk_use(const std::string& path) {
  ASSIGN_OR_RETURN(const FileIdentity wanted, FileIdentity::at(path));
  DiskUse use;
  for (const Libvirt& libvirt : libvirts()) {
    for (const std::string& name : libvirt.sockets) {
      const std::string socket = libvirt.folder + "/" + name;
      if (!is_alive(socket)) continue;
      if (const auto ready = initialize(); !ready) {
        use.remarks.push_back(ready.error().message());
        continue;
      }
      const auto owner = ask(libvirt, socket, wanted);
      if (!owner) {
        use.remarks.push_back(owner.error().message());
      } else if (!owner->name.empty()) {
        use.domain = fmt::format("domain '{}' of {}", owner->name, libvirt.name);
        use.saved = owner->saved;
        return use;
      }
    }
  }
  return use;
}

std::vector<std::string> running_libvirts() {
  std::vector<std::string> uris;
  for (const Libvirt& libvirt : libvirts())
    for (const std::string& name : libvirt.sockets)
      if (is_alive(libvirt.folder + "/" + name)) {
        // The system's sockets above are those for reading.
        uris.push_back(libvirt.name == "qemu:///system"
                           ? libvirt.name
                           : uri_of(libvirt, libvirt.folder + "/" + name));
        break;
      }
  return uris;
}

Result<std::vector<std::string>> check_unused(const std::string& path) {
  ASSIGN_OR_RETURN(DiskUse use, find_disk_use(path));
  if (use.domain.empty()) return std::move(use.remarks);
  if (use.saved)
    return fail(Error::protocol(
        EBUSY, fmt::format("{}: is a disk of {}, which has a saved state that relies on the "
                           "content of this disk: start the domain and shut it down, or discard "
                           "the saved state (virsh managedsave-remove)",
                           path, use.domain)));
  return fail(Error::protocol(
      EBUSY,
      fmt::format(
          "{}: is used by the running {}, as a disk or as a backing file: shut it down first", path,
          use.domain)));
}

}  // namespace vc::libvirt
