// Files that a program such as xz has compressed.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace qcow2 {

// A program that files are compressed with.
struct Compressor {
  const char* name;        // "xz"
  const char* decompress;  // a command that keeps the compressed file, its name to follow
  const char* to_stdout;   // one that decompresses standard input to standard output
  const char* filter;      // nbdkit's that reads such a file; nullptr: there is none
};

// nullptr: `start`, the first bytes of a file, are not how one of them begins.
const Compressor* find_compressor(std::span<const std::byte> start);

// What to do with the file `path` that it has compressed, for an error's message.
std::string advice(const Compressor& compressor, std::string_view path);

// Whether the name ends as those of QCOW2 images do: .qcow2 or .qcow, in any case.
bool is_named_qcow2(std::string_view path);

}  // namespace qcow2
