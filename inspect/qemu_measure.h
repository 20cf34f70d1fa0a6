// What `qemu-img measure` would say of an image with these options: a bound for what
// `qemu-img convert` writes.  The rules were read from what QEMU 7.2 does (block/qcow2.c).
#pragma once

#include <cstdint>
#include <optional>

#include "base/result.h"
#include "base/stop.h"
#include "copy/sink/image_options.h"
#include "copy/source/any_source.h"
#include "qcow2/format/build_options.h"
#include "qcow2/format/header.h"
#include "storage/storage.h"

namespace copy {

// Bytes.
struct QemuMeasure {
  uint64_t required = 0;         // for the data that the source has, not compressed
  uint64_t fully_allocated = 0;  // when every cluster has been written
};

// The same options with what they do not say as QEMU has it, whatever the source is like.
ImageOptions with_qemu_defaults(ImageOptions options);

// The clusters of an image with `geometry` that hold what QEMU calls data of `source`, which is no
// stream: holes of the files are data, but where metadata was preallocated.
qcow2::Result<uint64_t> qemu_data_clusters(const AnySource& source, const qcow2::Geometry& geometry,
                                           const Stop& stop);

// `data_clusters`: what a disk without a backing file has.  With one that is kept, all of the disk
// counts as data.
QemuMeasure qemu_measure(const qcow2::BuildOptions& build, Preallocation preallocation,
                         uint64_t data_clusters);

// Of a raw disk, which has whole sectors to QEMU.
QemuMeasure qemu_measure_raw(uint64_t size);

// What the persistent bitmaps of an image of `disk_size` bytes take in one with clusters of
// `cluster_size` bytes, as QEMU counts: all of each is allocated.  Nothing for an image that can
// have none (version 2).
qcow2::Result<std::optional<uint64_t>> bitmaps_size(const qcow2::Storage& storage,
                                                    const qcow2::Header& header, uint64_t disk_size,
                                                    uint64_t cluster_size);

}  // namespace copy
