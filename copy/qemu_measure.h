// What `qemu-img measure` would say of an image with these options: a bound for what
// `qemu-img convert` writes.  The rules were read from what QEMU 7.2 does (block/qcow2.c).
#pragma once

#include <cstdint>
#include <optional>

#include "copy/image_options.h"
#include "copy/source.h"
#include "copy/stop.h"
#include "qcow2/build_options.h"
#include "qcow2/header.h"
#include "qcow2/result.h"
#include "qcow2/storage.h"

namespace copy {

// Bytes.
struct QemuMeasure {
  uint64_t required = 0;         // for the data that the source has, not compressed
  uint64_t fully_allocated = 0;  // when every cluster has been written
};

// With an image that the source has behind it and keeps, all of the disk counts as data.
// `source` may be nullptr: a disk without data.
qcow2::Result<QemuMeasure> qemu_measure(Source* source, const qcow2::BuildOptions& build,
                                        Preallocation preallocation, const Stop& stop);

// What the persistent bitmaps of an image of `disk_size` bytes take in one with clusters of
// `cluster_size` bytes, as QEMU counts: all of each is allocated, those that are in use (and so of
// no value) are not copied.  Nothing for an image that can have none (version 2).
qcow2::Result<std::optional<uint64_t>> bitmaps_size(const qcow2::Storage& storage,
                                                    const qcow2::Header& header, uint64_t disk_size,
                                                    uint64_t cluster_size);

}  // namespace copy
