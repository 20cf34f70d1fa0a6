// A cluster in the file, with all that points to it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "qcow2/format/geometry.h"
#include "qcow2/format/header.h"
#include "qcow2/format/l2_entry.h"
#include "qcow2/relocate/pointer_window.h"
#include "storage/offset.h"

namespace vc::qcow2 {

// A cluster, or the stream of a compressed one, with all pointers to it.
struct StoredCluster {
  enum class Fate {
    kStays,   // where it is
    kPlain,   // as it is, in another place
    kStream,  // as `stream`
    kZero,    // without data
  };

  HostOffset at;
  uint64_t length;  // bytes
  bool compressed;
  std::span<const ClusterPointer> pointers;
  uint64_t times;  // references
  Fate fate = Fate::kStays;
  uint64_t bitmap = 0;  // of the extended L2 entries of a plain cluster, if they are the same
  std::vector<std::byte> stream = {};
};

// Returns the first cluster, or stream, that `pointers` lead to, and removes the pointers to it.
// `pointers` must be L2 entries from `window`, and outlive the result.
StoredCluster take_first(const Geometry& geometry, const PointerWindow& window,
                         std::span<const ClusterPointer>& pointers);

// Returns the entry of a cluster that reads as zeros, without data.  In a version 2 image, it reads
// the backing file, if there is one.
L2Entry zero_entry(const Header& header);

}  // namespace vc::qcow2
