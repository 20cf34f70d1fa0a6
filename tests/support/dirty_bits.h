// Persistent bitmaps as QEMU reads them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace vc::support {

// Returns one element per granule of 512 bytes of the disk: whether the bitmap has its bit set.
// qemu-nbd serves the image read-only.  Throws std::runtime_error if QEMU
// refuses the bitmap: it does not exist, or is not valid.
std::vector<bool> dirty_sectors(const std::string& image, const std::string& bitmap);

// Returns whether QEMU lists the bitmap with this flag ("auto", "in-use").
bool has_bitmap_flag(const std::string& image, const std::string& bitmap, const std::string& flag);

// Returns the names of the bitmaps that QEMU lists.
std::vector<std::string> bitmap_names(const std::string& image);

}  // namespace vc::support
