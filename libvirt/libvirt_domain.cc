#include "libvirt/libvirt_domain.h"

#include <fmt/format.h>
#include <libvirt/libvirt.h>

#include <cstdlib>

namespace vc::libvirt {

Result<LibvirtDomain> LibvirtDomain::open(const std::string& uri, const std::string& name,
                                          bool writable) {
  LibvirtDomain domain;
  ASSIGN_OR_RETURN(domain.connection_, connect(uri, writable));
  char* const real = virConnectGetURI(domain.connection_.get());
  const std::string where = real ? real : uri;
  std::free(real);
  domain.name_ = fmt::format("domain '{}' of {}", name, where);
  ASSIGN_OR_RETURN(domain.domain_, look_up(domain.connection_, name, domain.name_));
  return domain;
}

Result<std::string> LibvirtDomain::definition(bool secrets) const {
  char* const xml = virDomainGetXMLDesc(
      domain_.get(), VIR_DOMAIN_XML_INACTIVE | (secrets ? unsigned{VIR_DOMAIN_XML_SECURE} : 0u));
  if (!xml) return fail(last_error(name_));
  std::string text = xml;
  std::free(xml);
  return text;
}

Result<LibvirtDomain::State> LibvirtDomain::state() const {
  State state;
  const int active = virDomainIsActive(domain_.get());
  const int persistent = virDomainIsPersistent(domain_.get());
  if (active < 0 || persistent < 0) return fail(last_error(name_));
  state.running = active == 1;
  state.transient = persistent == 0;
  // Drivers without saved states return an error.
  state.has_saved_state = virDomainHasManagedSaveImage(domain_.get(), 0) == 1;
  return state;
}

Result<bool> LibvirtDomain::knows_granularity() const {
  constexpr unsigned long kSince = 10'000'000;  // 10.0.0, in the format of virConnectGetLibVersion
  unsigned long version = 0;
  if (virConnectGetLibVersion(connection_.get(), &version) != 0) return fail(last_error(name_));
  return version >= kSince;
}

Result<void> LibvirtDomain::define(const std::string& xml) {
  const DomainHandle defined(virDomainDefineXML(connection_.get(), xml.c_str()));
  if (!defined) return fail(last_error(name_ + ": not changed"));
  return {};
}

}  // namespace vc::libvirt
