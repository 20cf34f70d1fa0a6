// Connections to libvirt, and the handles of domains.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"

struct _virConnect;
struct _virDomain;

namespace vc::libvirt {

struct CloseConnection {
  void operator()(_virConnect* connection) const;
};
struct FreeDomain {
  void operator()(_virDomain* domain) const;
};
using Connection = std::unique_ptr<_virConnect, CloseConnection>;
using DomainHandle = std::unique_ptr<_virDomain, FreeDomain>;

// Returns libvirt's last error in this thread, with `what` before it.
Error last_error(const std::string& what);

// Must be called before all other functions of libvirt. Silences libvirt's error output: our errors
// are printed once, in one line.
Result<void> initialize();

// Initializes libvirt, and opens the connection `uri`; empty: libvirt's default.
Result<Connection> connect(const std::string& uri, bool writable);

// Finds a domain by its name or UUID. `what` names it in the error.
Result<DomainHandle> look_up(const Connection& connection, const std::string& name_or_uuid,
                             const std::string& what);

// The domains of a connection.
class DomainList {
 public:
  enum class Which { kAll, kRunning };
  DomainList(const Connection& connection, Which which);
  DomainList(const DomainList&) = delete;
  DomainList& operator=(const DomainList&) = delete;
  ~DomainList();

  int count() const { return count_; }  // -1: error
  // The list owns the domain.
  _virDomain* operator[](int i) const { return domains_[i]; }

 private:
  _virDomain** domains_ = nullptr;
  int count_;
};

}  // namespace vc::libvirt
