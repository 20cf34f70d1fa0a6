#include "libvirt/known_domains.h"

#include <fmt/format.h>
#include <libvirt/libvirt.h>

#include <array>
#include <cstdlib>
#include <memory>
#include <optional>
#include <utility>

#include "libvirt/connection.h"

namespace vc::libvirt {

namespace {

std::optional<DomainState> ask_state(_virDomain* domain) {
  int state = 0;
  if (virDomainGetState(domain, &state, nullptr, 0) != 0) return std::nullopt;
  switch (state) {
    case VIR_DOMAIN_SHUTOFF:
    case VIR_DOMAIN_CRASHED: {
      const int active = virDomainIsActive(domain);
      if (active < 0) return std::nullopt;
      if (active == 1) return DomainState::kPaused;
      // Drivers without saved states return an error.
      return virDomainHasManagedSaveImage(domain, 0) == 1 ? DomainState::kSaved : DomainState::kOff;
    }
    case VIR_DOMAIN_RUNNING:
    case VIR_DOMAIN_BLOCKED:
      return DomainState::kRuns;
    default:
      return DomainState::kPaused;
  }
}

Result<std::vector<DiskChain>> ask_disks(_virDomain* domain, const std::string& name) {
  const std::unique_ptr<char, void (*)(void*)> xml(virDomainGetXMLDesc(domain, 0), std::free);
  if (!xml) return fail(last_error(name));
  return read_disk_chains(xml.get(), name);
}

}  // namespace

Result<std::vector<KnownDomain>> known_domains(const std::string& uri) {
  ASSIGN_OR_RETURN(const Connection connection, connect(uri, false));
  const DomainList list(connection, DomainList::Which::kAll);
  if (list.count() < 0) return fail(last_error("libvirt: list the domains"));
  std::vector<KnownDomain> domains;
  for (int i = 0; i < list.count(); ++i) {
    const auto state = ask_state(list[i]);
    const char* const name = virDomainGetName(list[i]);
    std::array<char, VIR_UUID_STRING_BUFLEN> uuid{};
    if (!state || !name || virDomainGetUUIDString(list[i], uuid.data()) != 0) continue;
    domains.push_back({name, uuid.data(), uri, *state, virDomainIsPersistent(list[i]) == 1,
                       ask_disks(list[i], fmt::format("domain '{}'", name))});
  }
  return domains;
}

Result<DomainState> state_of(const KnownDomain& domain) {
  ASSIGN_OR_RETURN(const Connection connection, connect(domain.uri, false));
  const std::string what = fmt::format("domain '{}'", domain.name);
  ASSIGN_OR_RETURN(const DomainHandle handle, look_up(connection, domain.uuid, what));
  const auto state = ask_state(handle.get());
  if (!state) return fail(last_error(what));
  return *state;
}

}  // namespace vc::libvirt
