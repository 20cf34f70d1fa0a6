#include "qcow2/format/compressed_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>

namespace vc::qcow2 {

namespace {

struct Magic {
  std::string_view bytes;
  Compressor compressor;
};

using std::string_view_literals::operator""sv;

// Source: the .xz file format, 2.1.1.1; RFC 1952, 2.3.1 (with its only method); RFC 8878, 3.1.1.
// bzip2's "BZh" is followed by a digit and a magic, which is_bzip2 () checks.
constexpr std::array kMagics{
    Magic{"\xfd"
          "7zXZ\0"sv,
          {"xz", "xz -dk", "xz -dc", "xz"}},
    Magic{"\x1f\x8b\x08"sv, {"gzip", "gzip -dk", "gzip -dc", "gzip"}},
    Magic{"\x28\xb5\x2f\xfd"sv, {"zstd", "zstd -d", "zstd -dc", nullptr}},
    Magic{"BZh"sv, {"bzip2", "bzip2 -dk", "bzip2 -dc", nullptr}},
};

// Checks the rest of bzip2's start: the level, and pi in BCD (a block) or its square root (the end
// of an empty file).
bool is_bzip2(std::span<const std::byte> start) {
  constexpr std::string_view kBlock = "\x31\x41\x59\x26\x53\x59"sv;
  constexpr std::string_view kEnd = "\x17\x72\x45\x38\x50\x90"sv;
  if (start.size() < 10) return false;
  const auto level = static_cast<char>(start[3]);
  const auto is = [&](std::string_view magic) {
    return std::memcmp(start.data() + 4, magic.data(), magic.size()) == 0;
  };
  return level >= '1' && level <= '9' && (is(kBlock) || is(kEnd));
}

bool ends_with(std::string_view path, std::string_view end) {
  return path.size() > end.size() &&
         std::equal(
             end.begin(), end.end(), path.end() - static_cast<ptrdiff_t>(end.size()),
             [](char a, char b) { return a == std::tolower(static_cast<unsigned char>(b)); });
}

}  // namespace

const Compressor* find_compressor(std::span<const std::byte> start) {
  for (const Magic& it : kMagics) {
    if (start.size() < it.bytes.size()) continue;
    if (std::memcmp(start.data(), it.bytes.data(), it.bytes.size()) != 0) continue;
    if (it.bytes == "BZh" && !is_bzip2(start)) continue;
    return &it.compressor;
  }
  return nullptr;
}

std::string advice(const Compressor& compressor, std::string_view path) {
  std::string text = fmt::format("decompress it first ({} {})", compressor.decompress, path);
  if (compressor.filter)
    text += fmt::format(
        ", or have nbdkit do it: [ nbdkit --filter=qcow2 --filter={0} file {1} ], or without "
        "--filter=qcow2 if a raw disk is inside",
        compressor.filter, path);
  return text;
}

bool is_named_qcow2(std::string_view path) {
  return ends_with(path, ".qcow2") || ends_with(path, ".qcow");
}

}  // namespace vc::qcow2
