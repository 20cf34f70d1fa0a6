#include "tool/report/map_report.h"

#include <fmt/format.h>

#include "base/printable.h"

namespace vc::tool {

using inspect::MapEntry;

namespace {

constexpr size_t kBuffer = 64 << 10;  // bytes

const char* word(bool value) {
  return value ? "true" : "false";
}

// Formats a number as qemu-img does here: 0 has no prefix.
std::string hex(uint64_t value) {
  return value == 0 ? "0" : fmt::format("{:#x}", value);
}

}  // namespace

Result<void> MapReport::put(std::string_view text) {
  buffer_ += text;
  if (buffer_.size() < kBuffer) return {};
  RETURN_IF_ERROR(console_.print(buffer_));
  buffer_.clear();
  return {};
}

Result<void> MapReport::begin() {
  if (json_) return put("[");
  return put(fmt::format("{:<15} {:<15} {:<15} {}\n", "Offset", "Length", "Mapped to", "File"));
}

void MapReport::add_json(const MapEntry& entry) {
  if (!first_) buffer_ += ",\n";
  first_ = false;
  buffer_ += fmt::format(
      "{{ \"start\": {}, \"length\": {}, \"depth\": {}, \"present\": {}, \"zero\": {}, "
      "\"data\": {}, \"compressed\": {}",
      entry.start, entry.length, entry.depth, word(entry.present), word(entry.zero),
      word(entry.data), word(entry.compressed));
  // Whoever reads there must find the bytes of the disk.
  if (entry.offset && !entry.encrypted) buffer_ += fmt::format(", \"offset\": {}", *entry.offset);
  if (entry.compressed)
    buffer_ += fmt::format(", \"compressed-bytes\": {}", entry.compressed_bytes);
  buffer_ += "}";
}

Result<void> MapReport::add(const MapEntry& entry, const std::string& file) {
  if (json_) {
    add_json(entry);
    return put("");
  }
  if (!entry.data || entry.zero) return {};
  return put(fmt::format("{:<15} {:<15} {:<15} {}\n", hex(entry.start), hex(entry.length),
                         entry.compressed ? "compressed" : hex(*entry.offset), printable(file)));
}

Result<void> MapReport::end() {
  if (json_) buffer_ += "]\n";
  const std::string rest = std::move(buffer_);
  buffer_.clear();
  return console_.print(rest);
}

}  // namespace vc::tool
