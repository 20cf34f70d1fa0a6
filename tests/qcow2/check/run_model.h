// Computes fragmentation directly by its definition, from a list of clusters.
#pragma once

#include <cstdint>
#include <vector>

#include "qcow2/check/fragmentation.h"

namespace vc::map_test {

// A contiguous part of the file that a guest reads.
struct Piece {
  uint64_t at;
  uint64_t length;
  bool compressed;
  uint64_t end() const { return at + length; }
};

// `cluster_size`: bytes.
qcow2::Fragmentation::Figures model(const std::vector<Piece>& pieces, uint64_t cluster_size);

// Checks each figure with Catch2's CHECK.
void check_equal(const qcow2::Fragmentation::Figures& got,
                 const qcow2::Fragmentation::Figures& expected);

}  // namespace vc::map_test
