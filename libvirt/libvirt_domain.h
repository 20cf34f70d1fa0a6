// A domain that libvirt knows.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"

struct _virConnect;
struct _virDomain;

namespace tune {

class LibvirtDomain {
 public:
  // `uri`: of libvirt's connections; empty: libvirt's default.  `name`: a name or a UUID.
  static qcow2::Result<LibvirtDomain> open(const std::string& uri, const std::string& name,
                                           bool writable);

  // "domain 'web' of qemu:///system", for messages.
  const std::string& name() const { return name_; }

  // What the next start begins with: the inactive definition.  `secrets`: passwords with it, which
  // libvirt leaves out else, and which a definition must have not to lose them.
  qcow2::Result<std::string> definition(bool secrets) const;

  // What the user has to know of a changed definition.
  struct State {
    bool running = false;
    // It is gone once it stops, and has no definition that could be changed.
    bool transient = false;
    // The next start goes on from there, with the settings of that time.
    bool has_saved_state = false;
  };
  qcow2::Result<State> state() const;

  // Whether this libvirt keeps the granularity of a <blockio>, or drops it without a word.
  qcow2::Result<bool> knows_granularity() const;

  // Puts `xml` in place of the definition.  What runs goes on as it is.
  qcow2::Result<void> define(const std::string& xml);

 private:
  struct CloseConnection {
    void operator()(_virConnect* connection) const;
  };
  struct FreeDomain {
    void operator()(_virDomain* domain) const;
  };

  std::string name_;
  std::unique_ptr<_virConnect, CloseConnection> connection_;
  std::unique_ptr<_virDomain, FreeDomain> domain_;
};

}  // namespace tune
