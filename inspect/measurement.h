// Predicts the size of a copy.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "base/progress.h"
#include "base/result.h"
#include "copy/copier.h"
#include "inspect/qemu_measure.h"
#include "inspect/size_estimate.h"

namespace vc::inspect {

struct MeasureOptions {
  // Options of the copy. The destination is not checked and counts as a file.
  copy::CopyOptions copy;
  // Used instead of a source: an empty disk of this many bytes.
  std::optional<uint64_t> size;
  // Bytes of the source to read for an estimate; 0: read everything, for the exact size.
  uint64_t budget = 0;
  // Format for qemu-img's figures: raw, or else an image with the options above and QEMU's defaults
  // for unset ones.
  bool qemu_raw = false;
};

struct Measurement {
  QemuMeasure qemu;
  std::optional<uint64_t> bitmaps;  // size of the source's bitmaps in such an image, bytes

  qcow2::Format format = qcow2::Format::kQcow2;
  uint64_t virtual_size = 0;  // bytes
  uint64_t cluster_size = 0;  // bytes; 0: raw
  bool exact = true;          // file_size is exact; else it is between low and high
  uint64_t file_size = 0;     // bytes, without the external data file
  uint64_t low = 0;
  uint64_t high = 0;
  uint64_t sampled = 0;                       // bytes read for an estimate
  std::optional<copy::FreeSpace> free_space;  // set with skip_free
  std::chrono::duration<double> elapsed{};
};

// Reads the source. Writes nothing.
Result<Measurement> measure(const MeasureOptions& options, Progress& progress,
                            const Cancel& cancel);

}  // namespace vc::inspect
