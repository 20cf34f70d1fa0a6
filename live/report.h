// The results of a live run.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "copy/copy_summary.h"
#include "optimize/gain.h"
#include "optimize/image_check.h"

namespace vc::live {

using Seconds = std::chrono::duration<double>;

// How long the guest waited, as far as libvirt tells.
struct Waits {
  unsigned pauses = 0;
  Seconds longest_pause{};
  // Mean of each request of the guest to the disk. nullopt: there was no request.
  std::optional<Seconds> write_before;  // since the guest's start
  std::optional<Seconds> write_during;
  std::optional<Seconds> flush_before;
  std::optional<Seconds> flush_during;
};

struct LiveDiskReport {
  enum class Outcome {
    kChecked,    // a dry run
    kOptimized,  // the guest runs on the fresh image
    kCompact,    // the gain is below the limit: the guest runs on its disk as before
    kUndone,     // the guest (or its next start) uses its disk as before
  };
  struct Step {
    std::string name;
    Seconds elapsed{};
  };

  std::string domain;
  std::string target;
  std::string disk;
  std::string backup;  // empty: none
  std::string node;    // new name of the disk in QEMU's block layer; empty: libvirt knows it
  Outcome outcome = Outcome::kChecked;
  std::string error;    // why the run was undone, or has failed; empty: neither
  bool failed = false;  // the run is neither finished nor undone: it can be resumed
  optimize::DiskFigures before;
  optimize::DiskFigures after;
  std::optional<optimize::Gain> gain;
  copy::CopySummary copied;
  Waits waits;
  std::vector<Step> steps;
  Seconds elapsed{};
};

}  // namespace vc::live
