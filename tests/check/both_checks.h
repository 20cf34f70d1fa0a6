// One image, checked by qemu-img and by us.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "qcow2/check/checker.h"

namespace vc::checks {

// What qemu-img's JSON has, by key; a key that it leaves out is 0.
using Figures = std::map<std::string, uint64_t>;

struct QemuAnswer {
  int exit_code = -1;
  bool has_json = false;
  Figures figures;
  std::string says;  // all that it wrote
};

QemuAnswer ask_qemu(const std::string& image);

struct OurAnswer {
  int exit_code = -1;  // 1: could not be opened, too
  std::string error;   // when there are no figures
  Figures figures;
  std::vector<qcow2::Finding> findings;  // the first ones
  qcow2::CheckSums sums;
  std::string says;  // the findings in words

  bool has(qcow2::Finding::Kind kind) const;
};

OurAnswer ask_us(const std::string& image, const qcow2::CheckOptions& options = {});

// Figures that are not the same, a line each; empty: none.  `qemu` has figures, and so have we.
std::string differences(const QemuAnswer& qemu, const OurAnswer& ours);

}  // namespace vc::checks
