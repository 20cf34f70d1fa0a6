#include "qcow2/bitmaps/bitmap_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/byte_order.h"
#include "qcow2/format/l2_entry.h"

namespace vc::qcow2 {

Result<uint64_t> BitmapReader::entry(uint64_t index) const {
  std::array<std::byte, 8> bytes{};
  RETURN_IF_ERROR(with_context(read_fully(storage_, bitmap_.table + index * 8, bytes),
                               fmt::format("table of bitmap {}", index)));
  const uint64_t word = load_be64(bytes.data());
  if (bitmap_entry_is_bad(word, geometry_.cluster_size()))
    return fail(Error::corrupt(fmt::format("{}: entry {} of the table of bitmap '{}' is invalid",
                                           storage_.name(), index, bitmap_.name)));
  return word;
}

Result<void> BitmapReader::read(uint64_t at, std::span<std::byte> to) const {
  const uint64_t cluster_size = geometry_.cluster_size();
  while (!to.empty()) {
    const uint64_t index = at / cluster_size;
    const uint64_t offset = at % cluster_size;
    const auto piece = to.first(std::min<uint64_t>(to.size(), cluster_size - offset));
    uint64_t word = kBitmapZeros;
    if (index < bitmap_.table_entries) {
      ASSIGN_OR_RETURN(word, entry(index));
    }
    if (word == kBitmapZeros || word == kBitmapOnes)
      std::fill(piece.begin(), piece.end(), std::byte{static_cast<unsigned char>(word ? 0xff : 0)});
    else
      RETURN_IF_ERROR(with_context(read_fully(storage_, HostOffset(word) + offset, piece),
                                   "data of bitmap '" + bitmap_.name + "'"));
    at += piece.size();
    to = to.subspan(piece.size());
  }
  return {};
}

}  // namespace vc::qcow2
