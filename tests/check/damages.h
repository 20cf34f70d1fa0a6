// Good images with one thing wrong in each.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "qcow2/check/finding.h"

namespace vc::checks {

struct Damage {
  std::string name;
  std::string path;
  // What we find, among other things; nothing: the image cannot be opened.
  std::optional<qcow2::Finding::Kind> finds;
  // Where qemu-img says something else on purpose, why; empty: all figures are the same.
  std::string differs;
  int our_code = 2;
};

// Makes all of them in `folder`, which must be empty.
std::vector<Damage> make_damages(const std::string& folder);

}  // namespace vc::checks
