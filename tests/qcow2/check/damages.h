// Valid images, each with one damage.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "qcow2/check/finding.h"

namespace vc::checks {

struct Damage {
  std::string name;
  std::string path;
  // A finding that must be among the findings; nullopt if the image cannot be opened.
  std::optional<qcow2::Finding::Kind> finds;
  // The reason why figures of qemu-img differ on purpose; empty if all figures are equal.
  std::string differs;
  int our_code = 2;
};

// Makes all damaged images in `folder`, which must be empty.
std::vector<Damage> make_damages(const std::string& folder);

}  // namespace vc::checks
