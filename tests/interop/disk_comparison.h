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

// Everything below of `disk`, which QEMU sees as the current disk of the image `path`, and whose
// bytes stand in the file `raw`.  Throws std::runtime_error with what is wrong.  Returns the map of
// the whole disk.
std::vector<qcow2::Extent> require_same_disk(const qcow2::Disk& disk, const std::string& path,
                                             const std::string& raw, bool huge,
                                             support::Random& random);

// Each returns what is wrong, in words, and an empty string when nothing is.

// That the extents cover [begin, end) without gap or overlap, and say zero only where `truth` is.
std::string cover_complaint(const std::vector<qcow2::Extent>& extents, uint64_t begin, uint64_t end,
                            const support::RawFile& truth);

// That what the extents hold, read one by one, is what `truth` has there.
std::string extent_complaint(const qcow2::Disk& disk, const std::vector<qcow2::Extent>& extents,
                             const support::RawFile& truth);

// That pieces of all sizes, from `threads` threads at once, read as `truth` does.  A disk that is
// not `huge` is also read from end to end.
std::string read_complaint(const qcow2::Disk& disk, const support::RawFile& truth, unsigned threads,
                           bool huge, support::Random& random);

// That maps of random ranges, and maps that stop early, say what `whole` says, the map of all.
std::string partial_map_complaint(const qcow2::Disk& disk, const std::vector<qcow2::Extent>& whole,
                                  support::Random& random);

// That the extents tell what `qemu-img map` tells of the same disk.
std::string qemu_map_complaint(const qcow2::Disk& disk, const std::vector<qcow2::Extent>& extents,
                               const std::vector<MapEntry>& entries);

}  // namespace vc::interop
