// Sizes as people write and read them, the way qemu-img does.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace tool {

// Three significant digits and a binary unit: "512 B", "1.5 GiB", "0.977 KiB" for 1000 bytes.
std::string human_size(uint64_t bytes);

// Bytes.  Takes a number ("65536", "0x10000") or one with a unit behind it ("64k", "1.5G"); the
// units are b, k, M, G, T, P and E, powers of 1024, in either case.  The error says what is wrong
// with `text`, and shows it.
qcow2::Result<uint64_t> parse_size(std::string_view text);

// The same for a power of two from `low` to `high`; `range` says both for a person.
qcow2::Result<uint64_t> parse_power_of_two(const std::string& text, uint64_t low, uint64_t high,
                                           const char* range);

// A whole number from `low` to `high`, in decimal.
qcow2::Result<uint64_t> parse_number(std::string_view text, uint64_t low, uint64_t high);

}  // namespace tool
