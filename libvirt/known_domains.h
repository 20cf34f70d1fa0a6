// All domains of a libvirt, with their disks.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "libvirt/disk_chain.h"

namespace vc::libvirt {

enum class DomainState { kOff, kSaved, kRuns, kPaused };

struct KnownDomain {
  std::string name;
  std::string uuid;
  std::string uri;  // of its libvirt
  DomainState state = DomainState::kOff;
  bool persistent = true;
  // Of the domain as it runs, or of its next start.
  Result<std::vector<DiskChain>> disks;
};

// Queries the libvirt `uri`, read-only; empty: libvirt's default. Domains that disappear meanwhile
// are left out. A definition that cannot be parsed is the error of one domain.
Result<std::vector<KnownDomain>> known_domains(const std::string& uri);

// Returns the current state of a domain.
Result<DomainState> state_of(const KnownDomain& domain);

}  // namespace vc::libvirt
