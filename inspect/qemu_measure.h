// Predicts the output of `qemu-img measure` for an image with these options: an upper bound for
// what `qemu-img convert` writes. The rules follow QEMU 7.2 (block/qcow2.c).
#pragma once

#include <cstdint>
#include <optional>

#include "base/result.h"
#include "base/stop.h"
#include "copy/sink/image_options.h"
#include "copy/source/source.h"
#include "qcow2/format/build_options.h"
#include "qcow2/format/header.h"
#include "storage/storage.h"

namespace vc::inspect {

// Sizes in bytes.
struct QemuMeasure {
  uint64_t required = 0;         // for the data of the source, uncompressed
  uint64_t fully_allocated = 0;  // after every cluster was written
};

// Fills unset options with QEMU's defaults, whatever the source is.
copy::ImageOptions with_qemu_defaults(copy::ImageOptions options);

// Returns the number of clusters of an image with `geometry` that hold data of `source` by QEMU's
// rules: holes of the files count as data, except where metadata was preallocated. `source` must
// not be a stream.
Result<uint64_t> qemu_data_clusters(copy::Source& source, const qcow2::Geometry& geometry,
                                    const Stop& stop);

// `data_clusters`: data clusters of a disk without a backing file. With a kept backing file, all of
// the disk counts as data.
QemuMeasure qemu_measure(const qcow2::BuildOptions& build, copy::Preallocation preallocation,
                         uint64_t data_clusters);

// Returns the figures of a raw disk, rounded up to whole sectors as in QEMU.
QemuMeasure qemu_measure_raw(uint64_t size);

// Returns the size of the persistent bitmaps of an image of `disk_size` bytes in an image with
// clusters of `cluster_size` bytes. Counts each bitmap as fully allocated, as in QEMU. Returns
// nullopt for version 2, which has no bitmaps.
Result<std::optional<uint64_t>> bitmaps_size(const Storage& storage, const qcow2::Header& header,
                                             uint64_t disk_size, uint64_t cluster_size);

}  // namespace vc::inspect
