// Reads a finished image with as little of the engine as possible, to check the builder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>

#include "qcow2/format/header.h"

namespace vc::test {

struct MappedCluster {
  enum class Kind { kData, kCompressed, kZero };
  Kind kind = Kind::kData;
  uint64_t host = 0;    // bytes; 0 for zeros
  uint64_t length = 0;  // bytes; compressed: up to the end of the last sector

  bool operator==(const MappedCluster&) const = default;
};

struct WalkedImage {
  qcow2::Header header;
  std::map<uint64_t, MappedCluster> clusters;  // by the number of the guest cluster
  uint64_t host_clusters = 0;                  // number of clusters with guest data
  uint64_t l2_tables = 0;
};

// Walks the L1 and L2 tables and the refcounts of `file`. Fails the test unless every cluster of
// the file is referenced and has the right refcount, and no cluster past the end has one. Only
// compressed clusters may share a cluster. COPIED must be set exactly where it is required. No
// table may be empty.
WalkedImage walk(std::span<const std::byte> file);

}  // namespace vc::test
