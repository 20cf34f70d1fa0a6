#include "libvirt/libvirt_domain.h"

#include <fmt/format.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

#include <cerrno>
#include <cstdlib>

namespace vc::libvirt {

namespace {

Error last_error(const std::string& what) {
  const char* const message = virGetLastErrorMessage();
  return Error::protocol(EIO, fmt::format("{}: {}", what, message ? message : "unknown error"));
}

// Silences libvirt's error output: we print errors ourselves, once, in one line.
void be_silent(void* /*data*/, virErrorPtr /*error*/) {}

}  // namespace

void LibvirtDomain::CloseConnection::operator()(_virConnect* connection) const {
  virConnectClose(connection);
}

void LibvirtDomain::FreeDomain::operator()(_virDomain* domain) const {
  virDomainFree(domain);
}

Result<LibvirtDomain> LibvirtDomain::open(const std::string& uri, const std::string& name,
                                          bool writable) {
  if (virInitialize() != 0) return fail(last_error("libvirt"));
  virSetErrorFunc(nullptr, be_silent);
  LibvirtDomain domain;
  const char* const given = uri.empty() ? nullptr : uri.c_str();
  domain.connection_.reset(virConnectOpenAuth(given, virConnectAuthPtrDefault,
                                              writable ? 0u : unsigned{VIR_CONNECT_RO}));
  if (!domain.connection_)
    return fail(last_error("libvirt: " + (uri.empty() ? "default connection" : uri)));
  char* const real = virConnectGetURI(domain.connection_.get());
  const std::string where = real ? real : uri;
  std::free(real);
  domain.name_ = fmt::format("domain '{}' of {}", name, where);
  domain.domain_.reset(virDomainLookupByName(domain.connection_.get(), name.c_str()));
  if (!domain.domain_) {
    const Error error = last_error(domain.name_);
    domain.domain_.reset(virDomainLookupByUUIDString(domain.connection_.get(), name.c_str()));
    if (!domain.domain_) return fail(error);
  }
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
  const std::unique_ptr<_virDomain, FreeDomain> defined(
      virDomainDefineXML(connection_.get(), xml.c_str()));
  if (!defined) return fail(last_error(name_ + ": not changed"));
  return {};
}

}  // namespace vc::libvirt
