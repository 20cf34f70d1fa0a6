// What the whole procedure did.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "appliance/trim.h"
#include "copy/copier.h"
#include "optimize/free_space_plan.h"
#include "optimize/gain.h"
#include "optimize/image_check.h"
#include "qcow2/read/chain.h"

namespace vc::optimize {

struct OptimizeReport {
  struct Step {
    std::string name;
    std::chrono::duration<double> elapsed{};
  };

  std::string result;                            // where it is, or would be
  std::string backup;                            // empty: none
  qcow2::Format format = qcow2::Format::kQcow2;  // of the disk
  qcow2::Format result_format = qcow2::Format::kQcow2;
  uint64_t virtual_size = 0;  // bytes
  DiskFigures before;
  DiskFigures after;
  FreeSpacePlan plan;
  std::optional<appliance::TrimReport> trimmed;  // if the appliance was booted
  std::optional<Gain> gain;                      // if it was asked for
  bool dry_run = false;
  // It gains less than the limit: nothing was changed.
  bool compact = false;
  copy::CopySummary copied;
  std::vector<Step> steps;
  std::chrono::duration<double> elapsed{};
};

}  // namespace vc::optimize
