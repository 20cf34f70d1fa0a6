#include "qcow2/format/format_probe.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>

#include "qcow2/format/header.h"
#include "qcow2/read/chain.h"

namespace qcow2 {

namespace {

// Enough for the magic of each foreign format.
constexpr size_t kLook = 512;

struct Magic {
  std::string_view bytes;
  Compressor compressor;
};

using std::string_view_literals::operator""sv;

// The .xz file format, 2.1.1.1; RFC 1952, 2.3.1 (with the only method there is); RFC 8878, 3.1.1;
// bzip2's "BZh" is followed by a digit and the first block's magic, which is looked at below.
constexpr std::array kMagics{
    Magic{"\xfd"
          "7zXZ\0"sv,
          {"xz", "xz -dk", "xz -dc", "xz"}},
    Magic{"\x1f\x8b\x08"sv, {"gzip", "gzip -dk", "gzip -dc", "gzip"}},
    Magic{"\x28\xb5\x2f\xfd"sv, {"zstd", "zstd -d", "zstd -dc", nullptr}},
    Magic{"BZh"sv, {"bzip2", "bzip2 -dk", "bzip2 -dc", nullptr}},
};

// The rest of what bzip2 begins with: the level, and pi in BCD (a block) or its square root (the
// end of a file without data).
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

Result<Format> probe_format(const Storage& storage) {
  std::array<std::byte, kLook> start{};
  ASSIGN_OR_RETURN(const size_t got, storage.read(HostOffset(0), start));
  const std::string& name = storage.name();
  if (got == 0) return fail(Error::invalid(name + ": the file is empty"));
  const auto bytes = std::span<const std::byte>(start).first(got);
  if (has_magic(bytes)) return Format::kQcow2;
  if (const char* foreign = foreign_format(bytes))
    return fail(Error::unsupported(
        fmt::format("{}: looks like a {} image: only qcow2 and raw are supported", name, foreign)));
  if (const Compressor* const it = find_compressor(bytes))
    return fail(Error::unsupported(fmt::format(
        "{}: is compressed with {}: {}; if these bytes are a disk, -f raw says so (for a backing "
        "file, the format that the image gives it)",
        name, it->name, advice(*it, name))));
  if (is_named_qcow2(name))
    return fail(Error::corrupt(fmt::format(
        "{}: is named as a QCOW2 image, and does not begin as one: its header is lost, or this is "
        "something else; if it is a raw disk, -f raw says so (for a backing file, the format that "
        "the image gives it)",
        name)));
  return Format::kRaw;
}

}  // namespace qcow2
