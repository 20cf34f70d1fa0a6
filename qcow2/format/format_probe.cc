#include "qcow2/format/format_probe.h"

#include <fmt/format.h>

#include <array>
#include <string>

#include "crypto/luks_header.h"
#include "qcow2/format/compressed_file.h"
#include "qcow2/format/header.h"

namespace vc::qcow2 {

namespace {

// Sufficient for the magic of each foreign format.
constexpr size_t kProbeSize = 512;

}  // namespace

const char* to_string(Format format) {
  switch (format) {
    case Format::kQcow2:
      return "qcow2";
    case Format::kLuks:
      return "luks";
    case Format::kRaw:
      break;
  }
  return "raw";
}

Result<Format> probe_format(const Storage& storage) {
  std::array<std::byte, kProbeSize> start{};
  ASSIGN_OR_RETURN(const size_t got, storage.read(HostOffset(0), start));
  const std::string& name = storage.name();
  if (got == 0) return fail(Error::invalid(name + ": the file is empty"));
  const auto bytes = std::span<const std::byte>(start).first(got);
  if (has_magic(bytes)) return Format::kQcow2;
  if (crypto::is_luks_disk(bytes)) return Format::kLuks;
  if (const char* foreign = foreign_format(bytes))
    return fail(Error::unsupported(
        fmt::format("{}: looks like a {} image: only qcow2, raw and LUKS version 1 are supported; "
                    "with the format raw, its bytes are the disk",
                    name, foreign)));
  if (const Compressor* const it = find_compressor(bytes))
    return fail(Error::unsupported(
        fmt::format("{}: is compressed with {}: {}; if these bytes are a disk, use -f raw (for a "
                    "backing file, set its format in the image)",
                    name, it->name, advice(*it, name))));
  if (is_named_qcow2(name))
    return fail(Error::corrupt(
        fmt::format("{}: is named as a QCOW2 image, but does not begin like one: its header is "
                    "lost, or it is another kind of file; if it is a raw disk, use -f raw (for a "
                    "backing file, set its format in the image)",
                    name)));
  return Format::kRaw;
}

}  // namespace vc::qcow2
