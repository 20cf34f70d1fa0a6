// Recognizes files that a program such as xz has compressed.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace vc::qcow2 {

// A compression program.
struct Compressor {
  const char* name;        // "xz"
  const char* decompress;  // a command that keeps the compressed file; the name is appended
  const char* to_stdout;   // a command that decompresses standard input to standard output
  const char* filter;      // nbdkit's filter for such files; nullptr: there is none
};

// Returns the program whose format starts with `start`, the first bytes of a file; nullptr if there
// is none.
const Compressor* find_compressor(std::span<const std::byte> start);

// Returns advice for the compressed file `path`, for an error message.
std::string advice(const Compressor& compressor, std::string_view path);

// Returns whether the name has an extension of QCOW2 images: .qcow2 or .qcow, in any case.
bool is_named_qcow2(std::string_view path);

}  // namespace vc::qcow2
