#include "qcow2/format/bitmap_directory.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/byte_order.h"
#include "base/rounding.h"
#include "qcow2/format/l2_entry.h"

namespace vc::qcow2 {

namespace {

// Source: qcow2 specification, "Bitmaps extension" and "Bitmap directory entry"; limits of QEMU.
constexpr uint64_t kExtensionLength = 24;
constexpr uint64_t kEntryLength = bitmap_field::kName;  // before the extra data and the name
constexpr uint64_t kMostNameBytes = 1023;
constexpr uint64_t kMostDirectoryBytes = kMostBitmaps * (kEntryLength + 1024);
constexpr uint64_t kMostTableEntries = 0x8000000;
constexpr uint64_t kDirectoryOffset = 16;  // in the extension
constexpr uint32_t kFlagsReserved = 0xfffffff8;
constexpr uint64_t kTableEntryReserved = 0xff000000000001fe;  // "Bitmap table"
constexpr unsigned kMinGranularityBits = 9;
constexpr unsigned kMaxGranularityBits = 31;
constexpr unsigned kTypeDirtyTracking = 1;

// Returns the offset in the file of the data of `wanted`, an extension of the header.
HostOffset place_of(const Header& header, const HeaderExtension& wanted) {
  uint64_t at = header.header_length;
  for (const HeaderExtension& it : header.extensions) {
    at += 8;
    if (&it == &wanted) break;
    at += round_up(it.data.size(), 8);
  }
  return HostOffset(at);
}

class Parser {
 public:
  Parser(const Storage& storage, const Header& header) : storage_(storage), header_(header) {}

  Result<BitmapDirectory> run() {
    if (header_.version < 3 || (header_.autoclear_features & autoclear::kBitmaps) == 0)
      return std::move(it_);
    const HeaderExtension* const extension = header_.find_extension(HeaderExtension::kBitmaps);
    if (extension == nullptr) return std::move(it_);
    ASSIGN_OR_RETURN(const uint64_t file_size, storage_.size());
    const std::string wrong = read_extension(extension->data, file_size);
    if (!wrong.empty()) {
      it_.fault = BitmapDirectory::Fault{wrong, 0, HostOffset(0)};
      return std::move(it_);
    }
    it_.size = size_;
    it_.pointer = place_of(header_, *extension) + kDirectoryOffset;
    std::vector<std::byte> bytes(size_);
    RETURN_IF_ERROR(with_context(read_fully(storage_, it_.at, bytes), "bitmap directory"));
    read_entries(bytes);
    return std::move(it_);
  }

 private:
  // Returns the fault; empty if there is none.
  std::string read_extension(std::span<const std::byte> data, uint64_t file_size) {
    if (data.size() < kExtensionLength) return "the header extension is truncated";
    if (data.size() > kExtensionLength)
      return fmt::format("the header extension has {} bytes", data.size());
    count_ = load_be32(data.data());
    size_ = load_be64(data.data() + 8);
    it_.at = HostOffset(load_be64(data.data() + 16));
    if (load_be32(data.data() + 4) != 0) return "reserved bytes of the header extension are set";
    if (count_ == 0 || count_ > kMostBitmaps) return fmt::format("it has {} bitmaps", count_);
    if (size_ > kMostDirectoryBytes || size_ < count_ * kEntryLength)
      return fmt::format("it has {} bytes", size_);
    if (it_.at.value() == 0 || header_.geometry().offset_in_cluster(it_.at.value()) != 0)
      return "it does not begin at a cluster";
    if (size_ > file_size || it_.at.value() > file_size - size_)
      return fmt::format("it ends past the end of the file at {:#x}", file_size);
    return "";
  }

  void read_entries(std::span<const std::byte> bytes) {
    uint64_t at = 0;
    for (uint32_t i = 0; i < count_; ++i) {
      const HostOffset stands = it_.at + at;
      uint64_t length = 0;
      auto bitmap = read_entry(bytes.subspan(at), length);
      if (!bitmap) {
        it_.fault = BitmapDirectory::Fault{fmt::format("entry {} is damaged", i), i, stands};
        return;
      }
      bitmap->entry = stands;
      it_.bitmaps.push_back(std::move(*bitmap));
      at += length;
    }
    if (at != bytes.size())
      it_.fault = BitmapDirectory::Fault{
          fmt::format("{} bytes follow its last entry", bytes.size() - at), count_, it_.at + at};
  }

  std::optional<Bitmap> read_entry(std::span<const std::byte> bytes, uint64_t& length) const {
    if (bytes.size() < kEntryLength) return std::nullopt;
    const std::byte* const entry = bytes.data();
    Bitmap bitmap;
    bitmap.table = HostOffset(load_be64(entry + bitmap_field::kTable));
    bitmap.table_entries = load_be32(entry + bitmap_field::kTableEntries);
    bitmap.flags = load_be32(entry + bitmap_field::kFlags);
    const auto type = std::to_integer<unsigned>(entry[bitmap_field::kType]);
    bitmap.granularity_bits = std::to_integer<unsigned>(entry[bitmap_field::kGranularityBits]);
    const uint64_t name_bytes = load_be16(entry + bitmap_field::kNameBytes);
    bitmap.extra_bytes = load_be32(entry + bitmap_field::kExtraBytes);
    length = round_up(kEntryLength + bitmap.extra_bytes + name_bytes, 8);
    if (length > bytes.size() || name_bytes == 0 || name_bytes > kMostNameBytes ||
        bitmap.table_entries == 0 || bitmap.table_entries > kMostTableEntries ||
        bitmap.table.value() == 0 ||
        header_.geometry().offset_in_cluster(bitmap.table.value()) != 0 ||
        (bitmap.flags & kFlagsReserved) != 0 || type != kTypeDirtyTracking ||
        bitmap.granularity_bits < kMinGranularityBits ||
        bitmap.granularity_bits > kMaxGranularityBits || !has_right_size(bitmap))
      return std::nullopt;
    bitmap.name.assign(reinterpret_cast<const char*>(entry + kEntryLength + bitmap.extra_bytes),
                       name_bytes);
    return bitmap;
  }

  // A bitmap that is in use may be of another size of the disk.
  bool has_right_size(const Bitmap& bitmap) const {
    const uint64_t bytes = uint64_t{bitmap.table_entries} << header_.cluster_bits;
    return bytes <= kMostBitmapBytes &&
           (bitmap.in_use() || header_.size <= (bytes * 8) << bitmap.granularity_bits);
  }

  const Storage& storage_;
  const Header& header_;
  uint32_t count_ = 0;
  uint64_t size_ = 0;  // bytes
  BitmapDirectory it_;
};

}  // namespace

bool bitmap_entry_is_bad(uint64_t entry, uint64_t cluster_size) {
  const uint64_t offset = entry & kEntryOffsetMask;
  return (entry & kTableEntryReserved) != 0 ||
         (offset != 0 && (offset % cluster_size != 0 || (entry & 1) != 0));
}

uint64_t Bitmap::bits_for(uint64_t disk_size, unsigned granularity_bits) {
  return divide_up(disk_size, uint64_t{1} << granularity_bits);
}

uint64_t Bitmap::clusters_for(uint64_t disk_size, unsigned granularity_bits,
                              unsigned cluster_bits) {
  const uint64_t bits = bits_for(disk_size, granularity_bits);
  return std::max<uint64_t>(divide_up(bits, uint64_t{8} << cluster_bits), 1);
}

Result<BitmapDirectory> parse_bitmap_directory(const Storage& storage, const Header& header) {
  return Parser(storage, header).run();
}

Result<BitmapDirectory> read_bitmap_directory(const Storage& storage, const Header& header) {
  ASSIGN_OR_RETURN(auto directory, parse_bitmap_directory(storage, header));
  if (directory.fault)
    return fail(Error::corrupt(fmt::format("the directory of bitmaps at {:#x}: {}",
                                           directory.at.value(), directory.fault->what)));
  return directory;
}

uint64_t bitmap_entry_bytes(const std::string& name) {
  return round_up(kEntryLength + name.size(), 8);
}

void append_bitmap_entry(std::vector<std::byte>& directory, const Bitmap& bitmap) {
  const size_t at = directory.size();
  directory.resize(at + bitmap_entry_bytes(bitmap.name));
  std::byte* const entry = &directory[at];
  store_be64(entry + bitmap_field::kTable, bitmap.table.value());
  store_be32(entry + bitmap_field::kTableEntries, bitmap.table_entries);
  store_be32(entry + bitmap_field::kFlags, bitmap.flags);
  entry[bitmap_field::kType] = std::byte{kTypeDirtyTracking};
  entry[bitmap_field::kGranularityBits] =
      std::byte{static_cast<unsigned char>(bitmap.granularity_bits)};
  store_be16(entry + bitmap_field::kNameBytes, static_cast<uint16_t>(bitmap.name.size()));
  const auto name = std::as_bytes(std::span(bitmap.name));
  std::copy(name.begin(), name.end(), entry + bitmap_field::kName);
}

HeaderExtension bitmap_extension(uint32_t count, uint64_t directory_bytes, HostOffset directory) {
  HeaderExtension extension{HeaderExtension::kBitmaps, std::vector<std::byte>(kExtensionLength)};
  store_be32(extension.data.data(), count);
  store_be64(extension.data.data() + 8, directory_bytes);
  store_be64(extension.data.data() + kDirectoryOffset, directory.value());
  return extension;
}

std::optional<std::string> find_bitmap_fault(const NewBitmap& bitmap, uint64_t disk_size,
                                             unsigned cluster_bits) {
  if (bitmap.name.empty() || bitmap.name.size() > kMostNameBytes)
    return fmt::format("its name has {} bytes", bitmap.name.size());
  if (bitmap.granularity_bits < kMinGranularityBits ||
      bitmap.granularity_bits > kMaxGranularityBits)
    return fmt::format("its granularity is 2^{} bytes", bitmap.granularity_bits);
  const uint64_t bytes = Bitmap::clusters_for(disk_size, bitmap.granularity_bits, cluster_bits)
                         << cluster_bits;
  if (bytes > kMostBitmapBytes) return fmt::format("it would have {} bytes", bytes);
  return std::nullopt;
}

Result<void> mark_bitmaps_in_use(Storage& storage, const BitmapDirectory& directory, bool all) {
  bool any = false;
  for (const Bitmap& it : directory.bitmaps) {
    if (it.in_use() || !(all || it.automatic())) continue;
    // One aligned write: an entry begins at a multiple of 8.
    std::array<std::byte, 4> flags{};
    store_be32(flags.data(), it.flags | Bitmap::kInUse);
    RETURN_IF_ERROR(storage.write(it.entry + bitmap_field::kFlags, flags));
    any = true;
  }
  return any ? storage.flush() : Result<void>{};
}

}  // namespace vc::qcow2
