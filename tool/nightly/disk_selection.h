// The disks that a policy names, among those of the domains of a host.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "libvirt/known_domains.h"
#include "tool/nightly/policy.h"

namespace vc::tool {

struct NightlyDisk {
  std::string path;    // empty: the disk is not a file
  std::string domain;  // name; empty: the policy names the path
  std::string target;  // "vda"
  const libvirt::KnownDomain* known = nullptr;
  qcow2::Format format = qcow2::Format::kQcow2;
  const NightlySettings* settings = nullptr;
  std::string refusal;  // why the disk is never optimized; empty: nothing speaks against it

  // Returns "web: vda: /srv/web.qcow2", for messages.
  std::string name() const;
};

// Returns the disks of the domains in their order, and then those that the policy names by path.
// The result refers to both arguments. CD-ROMs and floppies are left out.
std::vector<NightlyDisk> select_disks(const Policy& policy,
                                      const std::vector<libvirt::KnownDomain>& domains);

}  // namespace vc::tool
