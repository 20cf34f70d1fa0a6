// A domain that libvirt knows.
#pragma once

#include <string>

#include "base/result.h"
#include "libvirt/connection.h"

namespace vc::libvirt {

class LibvirtDomain {
 public:
  // `uri`: libvirt connection URI; empty: libvirt's default. `name`: a name or a UUID.
  static Result<LibvirtDomain> open(const std::string& uri, const std::string& name, bool writable);

  // "domain 'web' of qemu:///system", for messages.
  const std::string& name() const { return name_; }

  // Returns the inactive definition, which the next start uses. `secrets`: include passwords, which
  // libvirt otherwise omits. A definition that is written back needs them.
  Result<std::string> definition(bool secrets) const;

  // What the user must know about a changed definition.
  struct State {
    bool running = false;
    // The domain disappears when it stops, and has no definition to change.
    bool transient = false;
    // The next start restores the saved state, and with it the old settings.
    bool has_saved_state = false;
  };
  Result<State> state() const;

  // Returns true if this libvirt keeps the granularity of a <blockio>. Older versions drop it
  // silently.
  Result<bool> knows_granularity() const;

  // Replaces the definition with `xml`. A running domain is not affected.
  Result<void> define(const std::string& xml);

 private:
  std::string name_;
  Connection connection_;
  DomainHandle domain_;
};

}  // namespace vc::libvirt
