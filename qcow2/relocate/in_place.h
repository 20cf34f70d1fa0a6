// Compacts an image within its own file: see image_shrink.h.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/byte_range.h"
#include "base/cancel.h"
#include "base/progress.h"
#include "base/result.h"
#include "qcow2/format/codec.h"
#include "qcow2/read/trust.h"
#include "storage/file_size.h"

namespace vc::qcow2 {

struct InPlaceOptions {
  Trust trust;
  bool defragment = false;  // put the data into the order of the guest, too
  bool zeros = false;       // free clusters of zeros; `defragment` does it as well
  bool compress = false;    // compress plain clusters, and pack compressed ones
  bool dry_run = false;
  Compression compression = {};  // without a type, or with that of the image
  unsigned threads = 0;          // to compress, and to find zeros; 0: one per processor
  // In a dry run: ranges of the disk that will have been discarded.
  std::vector<ByteRange> discarded = {};
  std::string repair_by = "virt-compact check -r all";  // the advice for an image with damage
};

struct InPlaceSummary {
  FileSize before;
  FileSize after;             // in a dry run, `length` is the expected one, and `blocks` 0
  uint64_t virtual_size = 0;  // bytes
  uint64_t snapshots = 0;     // internal ones
  uint64_t zeros = 0;         // bytes of clusters of zeros that were freed, or would be
  uint64_t to_move = 0;       // bytes, at the start, or after that
  uint64_t misplaced = 0;     // bytes out of order, at the start; only to defragment
  uint64_t moved = 0;         // bytes
  uint64_t compressed = 0;    // bytes of clusters that were compressed, or would be
  uint64_t unordered = 0;     // compressed clusters, which are not put in order; only to defragment
  uint64_t fixed = 0;         // clusters that stay, since not all references to them are known
  uint64_t leaks = 0;         // clusters that were freed, or would be
  // Leaked clusters that may be data of a table of zeros: they are not freed, and stay.
  uint64_t leaks_left = 0;
  bool has_data_file = false;  // the guest's data did not move
  bool is_device = false;      // a block device: `length` is the end of the image
  bool stopped = false;        // by the user: the image is consistent, and another run goes on
  std::chrono::duration<double> elapsed{};
};

// Returns an error if the image cannot be compacted so: it is raw, marked dirty or corrupt, or has
// no compressed clusters where `options` ask for some.  Neither locks it for writing nor checks it.
Result<void> require_compactable(const std::string& path, const InPlaceOptions& options);

// Moves what is at the end of the file of a QCOW2 image into free clusters before, and truncates
// the file.  Before that, frees zeros, and orders or compresses its data, if asked to.  Never reads
// a backing file. Checks the image first, and frees leaks, as far as they are certain: an error if
// the image is damaged, marked dirty or corrupt, or in use.  The image is consistent at any time,
// whatever interrupts the process.
Result<InPlaceSummary> compact_in_place(const std::string& path, const InPlaceOptions& options,
                                        Progress& progress, const Cancel& cancel);

}  // namespace vc::qcow2
