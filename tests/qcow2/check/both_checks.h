// Checks one image with qemu-img and with virt-compact.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "qcow2/check/checker.h"

namespace vc::checks {

// The values of qemu-img's JSON, by key.  A missing key is 0.
using Figures = std::map<std::string, uint64_t>;

struct QemuAnswer {
  int exit_code = -1;
  bool has_json = false;
  Figures figures;
  std::string says;  // its whole output
};

QemuAnswer ask_qemu(const std::string& image);

struct OurAnswer {
  int exit_code = -1;  // 1 also if the image could not be opened
  std::string error;   // set if there are no figures
  Figures figures;
  std::vector<qcow2::Finding> findings;  // the first findings
  qcow2::CheckSums sums;
  std::string says;  // the findings as text

  bool has(qcow2::Finding::Kind kind) const;
};

OurAnswer ask_us(const std::string& image, const qcow2::CheckOptions& options = {});

// Returns the figures that differ, one per line; empty if none do. Both results must have figures.
std::string differences(const QemuAnswer& qemu, const OurAnswer& ours);

}  // namespace vc::checks
