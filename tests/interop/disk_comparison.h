// The engine's view of a disk against the bytes that QEMU read from it.
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

// Makes all comparisons below for `disk`.  For QEMU it is the current disk of the image `path`, and
// the file `raw` has its bytes.  Throws std::runtime_error with the difference.  Returns the map of
// the whole disk.
std::vector<qcow2::Extent> require_same_disk(const qcow2::Disk& disk, const std::string& path,
                                             const std::string& raw, bool huge,
                                             support::Random& random);

// Each function returns a description of the difference, or an empty string.

// The extents cover [begin, end) without gap or overlap, and are zero only where `truth` is.
std::string cover_complaint(const std::vector<qcow2::Extent>& extents, uint64_t begin, uint64_t end,
                            const support::RawFile& truth);

// The extents, read one by one, have the bytes of `truth`.
std::string extent_complaint(const qcow2::Disk& disk, const std::vector<qcow2::Extent>& extents,
                             const support::RawFile& truth);

// Pieces of all sizes, read by `threads` threads at once, have the bytes of `truth`.  A disk that
// is not `huge` is also read from end to end.
std::string read_complaint(const qcow2::Disk& disk, const support::RawFile& truth, unsigned threads,
                           bool huge, support::Random& random);

// Maps of random ranges, and maps that stop early, agree with `whole`, the map of the disk.
std::string partial_map_complaint(const qcow2::Disk& disk, const std::vector<qcow2::Extent>& whole,
                                  support::Random& random);

// The extents agree with `qemu-img map` of the same disk.
std::string qemu_map_complaint(const qcow2::Disk& disk, const std::vector<qcow2::Extent>& extents,
                               const std::vector<MapEntry>& entries);

}  // namespace vc::interop
