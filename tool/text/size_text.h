// Formats and parses sizes in qemu-img's style.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace vc::tool {

// Formats three significant digits and a binary unit: "512 B", "1.5 GiB", "0.977 KiB" for 1000
// bytes.
std::string human_size(uint64_t bytes);

// Parses a size into bytes: a number ("65536", "0x10000"), or a number with a unit ("64k", "1.5G").
// Units are b, k, M, G, T, P and E, powers of 1024, in either case. The error quotes `text` and
// names the fault.
Result<uint64_t> parse_size(std::string_view text);

// Same for a power of two from `low` to `high`; `range` states both in words.
Result<uint64_t> parse_power_of_two(const std::string& text, uint64_t low, uint64_t high,
                                    const char* range);

// Parses a decimal integer from `low` to `high`.
Result<uint64_t> parse_number(std::string_view text, uint64_t low, uint64_t high);

}  // namespace vc::tool
