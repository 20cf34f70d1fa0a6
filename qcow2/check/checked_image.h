// An image that is being checked: its file, its header, and how it is checked.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "qcow2/format/header.h"
#include "storage/storage.h"

namespace vc::qcow2 {

struct CheckOptions {
  bool deep = false;     // decode every compressed cluster
  unsigned threads = 0;  // 0: one per processor
  // The approximate size of the counters in bytes (four times as much where clusters have more than
  // 254 references).
  uint64_t count_memory = 256 << 20;
};

struct CheckedImage {
  // Reads the header, and completes the options: see Checker::open ().  `storage` must outlive the
  // object.
  static Result<CheckedImage> open(const Storage& storage, const CheckOptions& options);

  const Storage& storage;
  CheckOptions options;  // with at least 1 thread
  Header header;
  Geometry geometry;
  uint64_t file_size = 0;  // bytes
  uint64_t clusters = 0;   // of the file, including a partial last one
};

}  // namespace vc::qcow2
