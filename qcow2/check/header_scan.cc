#include "qcow2/check/header_scan.h"

#include <algorithm>
#include <optional>
#include <span>
#include <vector>

#include "base/byte_order.h"
#include "base/rounding.h"
#include "qcow2/format/encryption.h"
#include "qcow2/format/header_fields.h"
#include "storage/padded_read.h"

namespace vc::qcow2 {

namespace {

using Kind = Finding::Kind;

// QEMU stores the name of a format in 16 bytes, with a NUL.
constexpr uint64_t kMostFormatName = 15;
constexpr uint64_t kBitmapsBytes = 24;
constexpr uint64_t kLuksBytes = 16;

Finding in_header(Kind kind, uint64_t at) {
  Finding it{};
  it.kind = kind;
  it.place = Finding::Place::kHeader;
  it.entry = HostOffset(at);
  return it;
}

// The length that an extension must have, if `length` is wrong: in bytes.
std::optional<uint64_t> right_length(uint32_t type, uint64_t length, uint64_t left) {
  switch (type) {
    case HeaderExtension::kEnd:
      return length > left ? std::optional<uint64_t>(0) : std::nullopt;
    case HeaderExtension::kBackingFormat:
      return length > kMostFormatName ? std::optional(kMostFormatName) : std::nullopt;
    case HeaderExtension::kBitmaps:
      return length != kBitmapsBytes ? std::optional(kBitmapsBytes) : std::nullopt;
    case HeaderExtension::kLuks:
      return length != kLuksBytes ? std::optional(kLuksBytes) : std::nullopt;
    default:
      return std::nullopt;
  }
}

class ExtensionScan {
 public:
  ExtensionScan(const Header& header, const std::function<void(const Finding&)>& found)
      : header_(header), found_(found) {}

  // `cluster`: the first cluster of the file. Header::read has checked that all extensions except
  // the last one fit.
  void run(std::span<const std::byte> cluster) {
    const uint64_t name = load_be64(&cluster[header_field::kBackingName]);
    const uint64_t end = name != 0 ? std::min<uint64_t>(name, cluster.size()) : cluster.size();
    for (uint64_t at = header_.header_length; at + 8 <= end;) {
      const uint32_t type = load_be32(&cluster[at]);
      const uint64_t length = load_be32(&cluster[at + 4]);
      check_extension(type, length, at, end - at - 8);
      if (type == HeaderExtension::kEnd) break;
      at += 8 + round_up(length, 8);
    }
  }

 private:
  void check_extension(uint32_t type, uint64_t length, uint64_t at, uint64_t left) {
    const auto tell = [&](Kind kind, uint64_t expected) {
      Finding it = in_header(kind, at);
      it.index = type;
      it.found = length;
      it.expected = expected;
      found_(it);
    };
    // The scan of bitmaps reports faults of their extension.
    const bool told = type == HeaderExtension::kBitmaps && header_.version >= 3 &&
                      (header_.autoclear_features & autoclear::kBitmaps) != 0;
    const auto right = right_length(type, length, left);
    if (right && !told) tell(Kind::kExtensionLength, *right);
    if (type == HeaderExtension::kLuks && header_.crypt_method != CryptMethod::kLuks)
      tell(Kind::kExtensionForeign, 0);
  }

  const Header& header_;
  const std::function<void(const Finding&)>& found_;
};

// Returns whether the header is within the file, and damaged.
bool is_damaged_luks(const Storage& storage, const Header& header, const EncryptionPointer& luks) {
  const auto size = storage.size();
  if (!size || luks.at.value() + luks.length > *size) return false;  // the walk reports it
  const auto read = read_luks_header(storage, header);
  return !read && read.error().kind() == Error::Kind::kCorrupt;
}

// Reports what keeps the key slots from being found, or read.
void scan_luks(const Storage& storage, const Header& header,
               const std::function<void(const Finding&)>& found) {
  const HeaderExtension* const luks = header.find_extension(HeaderExtension::kLuks);
  if (!luks) {
    Finding it = in_header(Kind::kExtensionMissing, header.header_length);
    it.index = HeaderExtension::kLuks;
    found(it);
    return;
  }
  if (luks->data.size() != kLuksBytes) return;  // reported with the extensions
  const auto pointer = encryption_pointer(header);
  if (!pointer) {
    Finding it = in_header(Kind::kLuksPlace, header.header_length);
    it.found = load_be64(luks->data.data());
    it.expected = load_be64(luks->data.data() + 8);
    found(it);
    return;
  }
  if (!is_damaged_luks(storage, header, *pointer)) return;
  Finding it = in_header(Kind::kLuksDamaged, header.header_length);
  it.place = Finding::Place::kEncryptionHeader;
  it.host = pointer->at;
  found(it);
}

}  // namespace

Result<void> scan_header(const Storage& storage, const Header& header,
                         const std::function<void(const Finding&)>& found) {
  std::vector<std::byte> cluster(header.geometry().cluster_size());
  RETURN_IF_ERROR(read_padded(storage, HostOffset(0), cluster));
  ExtensionScan(header, found).run(cluster);
  if (header.crypt_method == CryptMethod::kLuks) scan_luks(storage, header, found);
  if ((header.autoclear_features & autoclear::kDataFileRaw) != 0 && !header.has_data_file()) {
    Finding it = in_header(Kind::kDataFileRaw, header_field::kAutoclear);
    it.found = header.autoclear_features;
    it.expected = it.found & ~autoclear::kDataFileRaw;
    it.table_references = 1;
    it.repairable = true;
    found(it);
  }
  return {};
}

}  // namespace vc::qcow2
