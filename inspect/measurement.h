// What a copy will take, before it is made.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "base/progress.h"
#include "base/result.h"
#include "copy/copier.h"
#include "inspect/qemu_measure.h"
#include "inspect/size_estimate.h"

namespace copy {

struct MeasureOptions {
  // Of the copy; its destination is not looked at, and is a file.
  CopyOptions copy;
  // Instead of a source: a disk of so many bytes without data.
  std::optional<uint64_t> size;
  // Bytes of the source that may be read for an estimate; 0: read all there is, for the exact size.
  uint64_t budget = 0;
  // What qemu-img's figures are of: a raw disk, or an image with the options above and, for what
  // they do not say, QEMU's defaults.
  bool qemu_raw = false;
};

struct Measurement {
  QemuMeasure qemu;
  std::optional<uint64_t> bitmaps;  // of the source, in an image as qemu is of; bytes

  qcow2::Format format = qcow2::Format::kQcow2;
  uint64_t virtual_size = 0;  // bytes
  uint64_t cluster_size = 0;  // bytes; 0: raw
  bool exact = true;          // file_size is what the file will have; else between low and high
  uint64_t file_size = 0;     // bytes, the external data file not counted
  uint64_t low = 0;
  uint64_t high = 0;
  uint64_t sampled = 0;                 // bytes that were read for an estimate
  std::optional<FreeSpace> free_space;  // with skip_free
  std::chrono::duration<double> elapsed{};
};

// Reads the source, and writes nothing.
qcow2::Result<Measurement> measure(const MeasureOptions& options, Progress& progress,
                                   const Cancel& cancel);

}  // namespace copy
