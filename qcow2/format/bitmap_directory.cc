#include "qcow2/format/bitmap_directory.h"

#include <fmt/format.h>

#include "base/byte_order.h"

namespace qcow2 {

namespace {

constexpr uint64_t kExtensionLength = 24;
constexpr uint64_t kEntryLength = 24;  // before the extra data and the name
constexpr uint64_t kMostBitmaps = 65535;
constexpr uint64_t kMostDirectoryBytes = 64 << 20;
constexpr uint64_t kMostTableEntries = (32 << 20) / 8;
constexpr uint64_t kMostNameBytes = 1023;
constexpr unsigned kMinGranularityBits = 9;
constexpr unsigned kMaxGranularityBits = 31;

}  // namespace

Result<BitmapDirectory> read_bitmap_directory(const Storage& storage, const Header& header) {
  BitmapDirectory directory;
  if ((header.autoclear_features & autoclear::kBitmaps) == 0) return directory;
  const HeaderExtension* const extension = header.find_extension(HeaderExtension::kBitmaps);
  if (!extension) return directory;
  if (extension->data.size() < kExtensionLength)
    return fail(Error::corrupt("the header extension for bitmaps is cut off"));

  const std::byte* const from = extension->data.data();
  const uint64_t count = load_be32(from);
  directory.size = load_be64(from + 8);
  directory.at = HostOffset(load_be64(from + 16));
  const auto damaged = [&](const std::string& what) {
    return fail(Error::corrupt(
        fmt::format("the directory of bitmaps at {:#x}: {}", directory.at.value(), what)));
  };
  ASSIGN_OR_RETURN(const uint64_t file_size, storage.size());
  if (count > kMostBitmaps) return damaged(fmt::format("it has {} bitmaps", count));
  if (directory.size > kMostDirectoryBytes)
    return damaged(fmt::format("it has {} bytes", directory.size));
  if (header.geometry().offset_in_cluster(directory.at.value()) != 0)
    return damaged("it does not begin at a cluster");
  if (directory.size > file_size || directory.at.value() > file_size - directory.size)
    return damaged(fmt::format("it ends behind the end of the file at {:#x}", file_size));
  std::vector<std::byte> bytes(directory.size);
  RETURN_IF_ERROR(read_fully(storage, directory.at, bytes));

  uint64_t at = 0;
  for (uint64_t i = 0; i < count; ++i) {
    if (bytes.size() - at < kEntryLength) return damaged("it is cut off");
    const std::byte* const entry = bytes.data() + at;
    Bitmap bitmap;
    bitmap.table = HostOffset(load_be64(entry));
    bitmap.table_entries = load_be32(entry + 8);
    bitmap.flags = load_be32(entry + 12);
    bitmap.granularity_bits = std::to_integer<unsigned>(entry[17]);
    const uint64_t name_bytes = load_be16(entry + 18);
    const uint64_t extra_bytes = load_be32(entry + 20);
    const uint64_t length = (kEntryLength + extra_bytes + name_bytes + 7) / 8 * 8;
    if (length > bytes.size() - at || name_bytes > kMostNameBytes ||
        bitmap.table_entries > kMostTableEntries || bitmap.granularity_bits < kMinGranularityBits ||
        bitmap.granularity_bits > kMaxGranularityBits ||
        header.geometry().offset_in_cluster(bitmap.table.value()) != 0)
      return damaged(fmt::format("entry {} is damaged", i));
    bitmap.name.assign(reinterpret_cast<const char*>(entry + kEntryLength + extra_bytes),
                       name_bytes);
    directory.bitmaps.push_back(std::move(bitmap));
    at += length;
  }
  return directory;
}

}  // namespace qcow2
