// Compares the engine's view of a disk with QEMU's.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "qcow2/read/disk.h"
#include "qcow2/read/extent.h"
#include "tests/interop/qemu.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"

namespace vc::interop {

// Makes all comparisons below for `disk`. `path`: image whose current disk it is for QEMU. `raw`:
// file with its bytes. Throws std::runtime_error with the difference. Returns the map of the whole
// disk.
std::vector<qcow2::Extent> require_same_disk(const qcow2::Disk& disk, const std::string& path,
                                             const std::string& raw, bool huge,
                                             support::Random& random);

// Each function returns a description of the difference, or an empty string.

// Checks that the extents cover [begin, end) without gap or overlap, and are zero only where
// `truth` is.
std::string cover_complaint(const std::vector<qcow2::Extent>& extents, uint64_t begin, uint64_t end,
                            const support::RawFile& truth);

// Checks that the extents, read one by one, have the bytes of `truth`.
std::string extent_complaint(const qcow2::Disk& disk, const std::vector<qcow2::Extent>& extents,
                             const support::RawFile& truth);

// Checks that pieces of all sizes, read by `threads` threads, have the bytes of `truth`. A disk
// that is not `huge` is also read completely.
std::string read_complaint(const qcow2::Disk& disk, const support::RawFile& truth, unsigned threads,
                           bool huge, support::Random& random);

// Checks that maps of random ranges, and maps that stop early, agree with `whole`, the map of the
// disk.
std::string partial_map_complaint(const qcow2::Disk& disk, const std::vector<qcow2::Extent>& whole,
                                  support::Random& random);

// Checks that the extents agree with `qemu-img map` of the same disk.
std::string qemu_map_complaint(const qcow2::Disk& disk, const std::vector<qcow2::Extent>& extents,
                               const std::vector<MapEntry>& entries);

}  // namespace vc::interop
