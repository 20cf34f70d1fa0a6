#include "libvirt/connection.h"

#include <fmt/format.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

#include <cerrno>
#include <cstdlib>

namespace vc::libvirt {

namespace {

void be_silent(void* /*data*/, virErrorPtr /*error*/) {}

}  // namespace

void CloseConnection::operator()(_virConnect* connection) const {
  virConnectClose(connection);
}

void FreeDomain::operator()(_virDomain* domain) const {
  virDomainFree(domain);
}

Error last_error(const std::string& what) {
  const char* const message = virGetLastErrorMessage();
  return Error::protocol(EIO, fmt::format("{}: {}", what, message ? message : "unknown error"));
}

Result<void> initialize() {
  if (virInitialize() != 0) return fail(last_error("libvirt"));
  virSetErrorFunc(nullptr, be_silent);
  return {};
}

Result<Connection> connect(const std::string& uri, bool writable) {
  RETURN_IF_ERROR(initialize());
  Connection connection(virConnectOpenAuth(uri.empty() ? nullptr : uri.c_str(),
                                           virConnectAuthPtrDefault,
                                           writable ? 0u : unsigned{VIR_CONNECT_RO}));
  if (!connection)
    return fail(last_error("libvirt: " + (uri.empty() ? "default connection" : uri)));
  return connection;
}

Result<DomainHandle> look_up(const Connection& connection, const std::string& name_or_uuid,
                             const std::string& what) {
  DomainHandle domain(virDomainLookupByName(connection.get(), name_or_uuid.c_str()));
  if (domain) return domain;
  Error error = last_error(what);
  domain.reset(virDomainLookupByUUIDString(connection.get(), name_or_uuid.c_str()));
  if (!domain) return fail(std::move(error));
  return domain;
}

DomainList::DomainList(const Connection& connection, Which which)
    : count_(virConnectListAllDomains(
          connection.get(), &domains_,
          which == Which::kRunning ? unsigned{VIR_CONNECT_LIST_DOMAINS_ACTIVE} : 0u)) {}

DomainList::~DomainList() {
  for (int i = 0; i < count_; ++i) virDomainFree(domains_[i]);
  std::free(static_cast<void*>(domains_));
}

}  // namespace vc::libvirt
