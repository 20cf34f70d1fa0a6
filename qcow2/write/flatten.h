// Makes an overlay independent of its backing chain, in place.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "base/cancel.h"
#include "base/progress.h"
#include "base/result.h"
#include "qcow2/read/chain.h"
#include "storage/file_size.h"

namespace vc::qcow2 {

struct FlattenSummary {
  std::string backing_file;   // as named in the header
  uint64_t virtual_size = 0;  // bytes
  uint64_t written = 0;  // bytes of the disk from the backing chain, written (or to be written)
  uint64_t zeros = 0;    // bytes that the chain stores and that are zeros
  FileSize before;       // of the file
  FileSize after;        // unset in a dry run
  std::chrono::duration<double> elapsed{};
};

// Writes the data that the disk of the image at `path` reads from its backing files into the image,
// and then removes their name from its header.  The content of the disk never changes, even after
// an interruption: until the last write the image has its backing file, and after it the image
// needs none.  Only reads the backing files.
//
// These are errors, without a change: an image without a backing file, an image with snapshots
// (which need the backing file, too), and a filesystem without enough free space.
Result<FlattenSummary> flatten(const std::string& path, std::optional<qcow2::Format> format,
                               const qcow2::Trust& trust, Progress& progress, const Cancel& cancel);

// Dry run: returns what flatten() would write, and checks the free space.  Opens nothing for
// writing.
Result<FlattenSummary> predict_flatten(const std::string& path, std::optional<qcow2::Format> format,
                                       const qcow2::Trust& trust, Progress& progress,
                                       const Cancel& cancel);

}  // namespace vc::qcow2
