// Files whose contents a guest does not need, as tests make them, and find them in a volume.
#pragma once

#include <cstdint>
#include <string>

#include "guest/inspection.h"

namespace vc::guest_test {

// Random bytes, which are the same for the same size.
std::string noise(size_t size);
void write_noise(const std::string& path, size_t size);
// The same with the header of swap space.
void write_swap_file(const std::string& path, size_t size);

// Returns the only volume of a raw file, of which it is known what is free.
guest::Volume read_with_files(const std::string& path, const guest::FileKinds& kinds);
// The contents of all its files, in bytes of the file.
guest::Ranges contents_of(const guest::Volume& volume);
// Checks that no file is told of, for a reason that contains `why`.
void check_no_files(const std::string& path, const guest::FileKinds& kinds, const std::string& why);

}  // namespace vc::guest_test
