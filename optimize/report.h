// Results of the whole procedure.
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

  std::string result;                            // path of the result, also after a dry run
  std::string backup;                            // empty: no backup
  qcow2::Format format = qcow2::Format::kQcow2;  // of the disk
  qcow2::Format result_format = qcow2::Format::kQcow2;
  uint64_t virtual_size = 0;  // bytes
  DiskFigures before;
  DiskFigures after;
  FreeSpacePlan plan;
  std::optional<appliance::TrimReport> trimmed;  // nullopt: the appliance was not booted
  std::optional<Gain> gain;                      // nullopt: not requested
  bool dry_run = false;
  // The gain is below the limit: nothing was changed.
  bool compact = false;
  copy::CopySummary copied;
  std::vector<Step> steps;
  std::chrono::duration<double> elapsed{};
};

}  // namespace vc::optimize
