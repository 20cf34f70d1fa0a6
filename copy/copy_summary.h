// What a copy has done.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "copy/sink/destination.h"
#include "copy/source/free_space.h"
#include "copy/verify.h"
#include "qcow2/format/format_probe.h"
#include "qcow2/read/losses.h"
#include "storage/descriptor.h"

namespace copy {

struct CopySummary {
  using FileSize = copy::FileSize;

  uint64_t virtual_size = 0;  // bytes
  uint64_t cluster_size = 0;  // of the destination (or what zeros are looked for in), bytes
  qcow2::Format format = qcow2::Format::kQcow2;
  // Of the source with its backing chain, down to a backing file that is kept; nothing where it is
  // no file.
  std::optional<FileSize> source;
  std::optional<FileSize> destination;
  // Clusters of the destination's virtual disk.
  uint64_t data_clusters = 0;
  uint64_t compressed_clusters = 0;
  uint64_t zero_clusters = 0;  // left out, found to be zeros or said to be by the source
  // How many of the compressed went across as they were, and how many zero clusters were stored as
  // data in the source.
  uint64_t passed_through_clusters = 0;
  uint64_t found_zero_clusters = 0;
  std::optional<VerifySummary> verified;
  // The file that was made, whatever has its name by now; nullptr where it is none.
  std::shared_ptr<qcow2::Descriptor> file;
  std::vector<qcow2::Loss> lost;        // of a salvage, in order
  std::optional<FreeSpace> free_space;  // with skip_free
  // Of a dry run, bytes: how long a QCOW2 image would be, or how much data a raw disk would get.
  std::optional<uint64_t> foretold;
  std::chrono::duration<double> elapsed{};
};

}  // namespace copy
