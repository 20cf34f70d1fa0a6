#include "tests/interop/image_editor.h"

#include <algorithm>
#include <stdexcept>

#include "base/byte_order.h"
#include "tests/support/raw_file.h"

namespace vc::interop {

namespace {

// Bits 9 to 55 of an L1 entry.
constexpr uint64_t kOffsetMask = 0x00fffffffffffe00;

}  // namespace

ImageEditor::ImageEditor(const std::string& path) : path_(path), bytes_(support::read_file(path)) {}

void ImageEditor::save_as(const std::string& path) const {
  support::write_file(path, bytes_);
}

uint32_t ImageEditor::get32(uint64_t at) const {
  return load_be32(&bytes_.at(at));
}

uint64_t ImageEditor::get64(uint64_t at) const {
  return load_be64(&bytes_.at(at));
}

void ImageEditor::put(uint64_t at, std::span<const std::byte> value) {
  bytes_.resize(std::max<uint64_t>(bytes_.size(), at + value.size()));
  std::copy(value.begin(), value.end(), bytes_.begin() + static_cast<ptrdiff_t>(at));
}

void ImageEditor::put(uint64_t at, const std::string& value) {
  put(at, std::as_bytes(std::span(value)));
}

void ImageEditor::put32(uint64_t at, uint32_t value) {
  const uint32_t big = swap_if_little(value);
  put(at, std::as_bytes(std::span(&big, 1)));
}

void ImageEditor::put64(uint64_t at, uint64_t value) {
  const uint64_t big = swap_if_little(value);
  put(at, std::as_bytes(std::span(&big, 1)));
}

uint64_t ImageEditor::l1_entry_at(uint64_t guest) const {
  const uint64_t entries = cluster_size() / (extended_l2() ? 16 : 8);
  return get64(kL1Offset) + guest / cluster_size() / entries * 8;
}

uint64_t ImageEditor::l2_entry_at(uint64_t guest) const {
  const uint64_t table = get64(l1_entry_at(guest)) & kOffsetMask;
  if (table == 0) throw std::runtime_error(path_ + ": no L2 table there");
  const uint64_t entry_size = extended_l2() ? 16 : 8;
  return table + guest / cluster_size() % (cluster_size() / entry_size) * entry_size;
}

std::vector<ImageEditor::Extension> ImageEditor::extensions() const {
  std::vector<Extension> all;
  uint64_t at = get32(kVersion) == 2 ? 72 : get32(kHeaderLength);
  while (true) {
    const uint32_t type = get32(at);
    const uint32_t length = get32(at + 4);
    if (type == 0) return all;
    const auto begin = bytes_.begin() + static_cast<ptrdiff_t>(at + 8);
    all.push_back({type, {begin, begin + length}});
    at += 8 + (length + 7) / 8 * 8;
  }
}

void ImageEditor::put_extensions(uint32_t header_length, const std::vector<Extension>& extensions) {
  put32(kHeaderLength, header_length);
  uint64_t at = header_length;
  for (const Extension& extension : extensions) {
    put32(at, extension.type);
    put32(at + 4, static_cast<uint32_t>(extension.data.size()));
    put(at + 8, extension.data);
    at += 8 + (extension.data.size() + 7) / 8 * 8;
  }
  put64(at, 0);
}

}  // namespace vc::interop
