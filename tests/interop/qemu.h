// Runs QEMU's tools, whose results are the reference for the tests.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/process.h"

namespace vc::interop {

// An entry of `qemu-img map --output=json`.
struct MapEntry {
  uint64_t start = 0;   // bytes
  uint64_t length = 0;  // bytes
  uint32_t depth = 0;
  bool present = false;
  bool zero = false;
  bool data = false;
  std::optional<uint64_t> offset;  // bytes, in the file of that depth
};

std::vector<MapEntry> qemu_map(const std::string& image);

// Writes the disk of `image` to a new raw file.
void convert_to_raw(const std::string& image, const std::string& raw);

// The checks below return a description of the problem, or an empty string.

// Checks that `qemu-img check` finds neither errors nor leaks.
std::string check_complaint(const std::string& image);
// Checks that `qemu-img compare` finds both disks identical. One may be longer, with zeros.
std::string compare_complaint(const std::string& image, const std::string& image_format,
                              const std::string& raw);

// Returns the virtual size, bytes.
uint64_t virtual_size(const std::string& image);

}  // namespace vc::interop
