// Makes files whose contents a guest does not need, and finds them in a volume.
#pragma once

#include <cstdint>
#include <string>

#include "guest/inspection.h"

namespace vc::guest_test {

// Returns random bytes, which depend only on the size.
std::string noise(size_t size);
void write_noise(const std::string& path, size_t size);
// Writes random bytes with the header of swap space.
void write_swap_file(const std::string& path, size_t size);

// Returns the only volume of a raw file. Its free space must be known.
guest::Volume read_with_files(const std::string& path, const guest::FileKinds& kinds);
// Returns the contents of all its files, in bytes of the raw file.
guest::Ranges contents_of(const guest::Volume& volume);
// Checks that no file is found, for a reason that contains `why`.
void check_no_files(const std::string& path, const guest::FileKinds& kinds, const std::string& why);

}  // namespace vc::guest_test
