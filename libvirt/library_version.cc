#include "libvirt/library_version.h"

#include <fmt/format.h>
#include <libvirt/libvirt.h>

namespace vc::libvirt {

std::string library_version() {
  unsigned long version = 0;  // major * 1,000,000 + minor * 1,000 + release
  if (virGetVersion(&version, nullptr, nullptr) != 0) return "unknown";
  return fmt::format("{}.{}.{}", version / 1'000'000, version / 1000 % 1000, version % 1000);
}

}  // namespace vc::libvirt
