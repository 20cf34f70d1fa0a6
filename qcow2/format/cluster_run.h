// Consecutive clusters of an image file.
#pragma once

#include <cstdint>

#include "storage/offset.h"

namespace vc::qcow2 {

struct ClusterRun {
  HostCluster first;
  uint64_t count = 0;

  // Returns the cluster past the last one.
  HostCluster end() const { return first + count; }
};

}  // namespace vc::qcow2
