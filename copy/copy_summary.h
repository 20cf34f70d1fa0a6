// The results of a copy.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "copy/sink/destination.h"
#include "copy/source/free_space.h"
#include "copy/verify.h"
#include "qcow2/format/format_probe.h"
#include "qcow2/read/losses.h"
#include "storage/descriptor.h"
#include "storage/file_size.h"

namespace vc::copy {

struct CopySummary {
  uint64_t virtual_size = 0;  // bytes
  uint64_t cluster_size = 0;  // of the destination, or the block size for zero detection; bytes
  qcow2::Format format = qcow2::Format::kQcow2;
  // Size of the source with its backing chain, down to a backing file that is kept. nullopt if the
  // source is not a file.
  std::optional<FileSize> source;
  std::optional<FileSize> destination;
  // Counts of clusters of the destination's virtual disk.
  uint64_t data_clusters = 0;
  uint64_t compressed_clusters = 0;
  uint64_t zero_clusters = 0;  // not stored: detected as zeros, or zeros according to the source
  // Compressed clusters that were copied without recompression, and zero clusters that the source
  // stored as data.
  uint64_t passed_through_clusters = 0;
  uint64_t found_zero_clusters = 0;
  // Internal snapshots, and the clusters that only they have, with those of their VM states.
  size_t snapshots = 0;
  uint64_t snapshot_clusters = 0;
  uint64_t cloned = 0;  // bytes that share blocks with the source
  std::optional<VerifySummary> verified;
  // The new file, even if it was renamed since. nullptr if the destination is not a file.
  std::shared_ptr<Descriptor> file;
  uint64_t bitmaps = 0;  // persistent bitmaps that went along
  // Why others did not; one sentence each.
  std::vector<std::string> bitmaps_left_out;
  std::vector<qcow2::Loss> lost;        // by a salvage, in order
  std::optional<FreeSpace> free_space;  // set with skip_free
  // Set by a dry run, bytes: the length of a QCOW2 image, or the amount of data for a raw disk.
  std::optional<uint64_t> predicted;
  std::chrono::duration<double> elapsed{};
};

}  // namespace vc::copy
