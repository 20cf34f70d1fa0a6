#include "qcow2/format/header.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>

#include "base/byte_order.h"
#include "base/printable.h"
#include "qcow2/format/compressed_file.h"
#include "qcow2/format/header_fields.h"

namespace vc::qcow2 {

namespace {

using Bytes = std::span<const std::byte>;

// An entry of the feature name table: the kind of feature, the bit, and a name, without NUL if it
// fills its field.
constexpr size_t kFeatureNameEntry = 48;
constexpr uint8_t kIncompatibleFeature = 0;

std::string text(Bytes bytes) {
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

// A name that may be padded with NULs, where QEMU lets it end.
std::string name_text(Bytes bytes) {
  std::string name = text(bytes);
  const size_t last = name.find_last_not_of('\0');
  name.resize(last == std::string::npos ? 0 : last + 1);
  return name;
}

Failure corrupt(std::string message) {
  return fail(Error::corrupt(std::move(message)));
}

// The magic number of a foreign format.
struct ForeignMagic {
  uint64_t at;
  std::string_view magic;
  const char* name;
};
constexpr std::array<ForeignMagic, 10> kForeign{{
    {0, "KDMV", "VMDK"},
    {0, "COWD", "VMDK"},
    {0, "# Disk DescriptorFile", "VMDK"},
    {0, "vhdxfile", "VHDX"},
    {0, "conectix", "VPC"},
    {0, "LUKS\xba\xbe", "LUKS"},
    {0, std::string_view("QED\0", 4), "QED"},
    {0, "WithoutFreeSpace", "Parallels"},
    {0, "WithouFreSpacExt", "Parallels"},
    {0x40, "\x7f\x10\xda\xbe", "VDI"},
}};

std::string feature_list(uint64_t bits, const HeaderExtension* names) {
  std::string list;
  for (unsigned bit = 0; bit < 64; ++bit) {
    if ((bits & (uint64_t{1} << bit)) == 0) continue;
    std::string name = fmt::format("unknown incompatible feature {}", bit);
    for (size_t at = 0; names && at + kFeatureNameEntry <= names->data.size();
         at += kFeatureNameEntry) {
      const Bytes entry = Bytes(names->data).subspan(at, kFeatureNameEntry);
      if (std::to_integer<uint8_t>(entry[0]) != kIncompatibleFeature ||
          std::to_integer<unsigned>(entry[1]) != bit)
        continue;
      std::string given = text(entry.subspan(2));
      given.resize(std::min(given.find('\0'), given.size()));
      if (!given.empty()) name = fmt::format("'{}'", printable(given));
      break;
    }
    if (!list.empty()) list += ", ";
    list += name;
  }
  return list;
}

// Checks that a table (if any) starts at a cluster, and that its end does not overflow.
Result<void> check_table(const char* what, HostOffset at, uint64_t bytes,
                         const Geometry& geometry) {
  if (geometry.offset_in_cluster(at.value()) != 0)
    return corrupt(fmt::format("the {} at {:#x} does not begin at a cluster", what, at.value()));
  if (at.value() > static_cast<uint64_t>(INT64_MAX) - bytes)
    return corrupt(fmt::format("the {} at {:#x} is outside of any file", what, at.value()));
  return {};
}

Result<void> read_extensions(Header& header, Bytes cluster, size_t end) {
  size_t at = header.header_length;
  while (at < end) {
    if (end - at < 8) return corrupt(fmt::format("the header extension at {:#x} is truncated", at));
    HeaderExtension extension;
    extension.type = load_be32(&cluster[at]);
    const uint64_t length = load_be32(&cluster[at + 4]);
    if (extension.type == HeaderExtension::kEnd) break;
    at += 8;
    if (length > end - at)
      return corrupt(
          fmt::format("the header extension {:#010x} at {:#x} has a length of {}, but "
                      "only {} bytes are left for it",
                      extension.type, at - 8, length, end - at));
    const Bytes data = cluster.subspan(at, length);
    extension.data.assign(data.begin(), data.end());
    header.extensions.push_back(std::move(extension));
    at += std::min<uint64_t>((length + 7) & ~uint64_t{7}, end - at);
  }
  return {};
}

Result<void> check_features(const Header& header, Header::Purpose purpose) {
  const uint64_t unknown = header.incompatible_features & ~incompatible::kKnown;
  if (unknown != 0)
    return fail(Error::unsupported(
        fmt::format("the image needs features that virt-compact does not know: {}",
                    feature_list(unknown, header.find_extension(HeaderExtension::kFeatureNames)))));
  const bool accepted = purpose != Header::Purpose::kUse;
  switch (header.crypt_method) {
    case CryptMethod::kNone:
      break;
    case CryptMethod::kAes:
      if (accepted) break;
      return fail(
          Error::unsupported("the image is encrypted with AES, which is not supported here"));
    case CryptMethod::kLuks:
      if (accepted) break;
      return fail(
          Error::unsupported("the image is encrypted with LUKS, which is not supported here"));
    default:
      return fail(Error::unsupported(
          fmt::format("unknown encryption method {}", static_cast<uint32_t>(header.crypt_method))));
  }
  if (header.extended_l2() && header.cluster_bits < Geometry::kMinClusterBitsExtendedL2)
    return corrupt(fmt::format("extended L2 entries with clusters of {} bytes: 16 KiB at least",
                               uint64_t{1} << header.cluster_bits));
  return {};
}

Result<void> check_tables(const Header& header, Header::Purpose purpose) {
  const Geometry geometry = header.geometry();
  const uint64_t l1_needed = geometry.l1_entries_for(header.size);
  if (uint64_t{header.l1_entries} * 8 > Limits::kL1Bytes)
    return corrupt(fmt::format("the L1 table has {} entries: {} at most", header.l1_entries,
                               Limits::kL1Bytes / 8));
  if (header.l1_entries < l1_needed && purpose != Header::Purpose::kSalvage)
    return corrupt(fmt::format("the L1 table has {} entries, but a disk of {} bytes needs {}",
                               header.l1_entries, header.size, l1_needed));
  RETURN_IF_ERROR(
      check_table("L1 table", header.l1_table, uint64_t{header.l1_entries} * 8, geometry));
  if (purpose == Header::Purpose::kCheck || purpose == Header::Purpose::kSalvage) return {};

  const uint64_t refcount_bytes = uint64_t{header.refcount_table_clusters} << header.cluster_bits;
  if (header.refcount_table_clusters == 0) return corrupt("there is no refcount table");
  if (refcount_bytes > Limits::kRefcountTableBytes)
    return corrupt(fmt::format("the refcount table has {} clusters: {} at most",
                               header.refcount_table_clusters,
                               Limits::kRefcountTableBytes >> header.cluster_bits));
  RETURN_IF_ERROR(check_table("refcount table", header.refcount_table, refcount_bytes, geometry));

  if (header.snapshot_count > Limits::kSnapshots)
    return corrupt(fmt::format("there are {} snapshots: {} at most", header.snapshot_count,
                               Limits::kSnapshots));
  if (header.snapshot_count > 0)
    RETURN_IF_ERROR(check_table("snapshot table", header.snapshot_table, 0, geometry));
  return {};
}

}  // namespace

const char* to_string(CompressionType type) {
  return type == CompressionType::kZstd ? "zstd" : "zlib";
}

const HeaderExtension* Header::find_extension(uint32_t type) const {
  const auto found = std::find_if(extensions.begin(), extensions.end(),
                                  [&](const HeaderExtension& it) { return it.type == type; });
  return found == extensions.end() ? nullptr : &*found;
}

std::optional<std::string> Header::backing_format() const {
  const HeaderExtension* found = find_extension(HeaderExtension::kBackingFormat);
  if (!found) return std::nullopt;
  return text(found->data);
}

std::optional<std::string> Header::data_file() const {
  const HeaderExtension* found = find_extension(HeaderExtension::kDataFile);
  if (!found) return std::nullopt;
  return text(found->data);
}

const char* foreign_format(std::span<const std::byte> start) {
  for (const ForeignMagic& it : kForeign) {
    if (start.size() < it.at + it.magic.size()) continue;
    if (std::memcmp(start.data() + it.at, it.magic.data(), it.magic.size()) == 0) return it.name;
  }
  return nullptr;
}

bool has_magic(std::span<const std::byte> start) {
  return start.size() >= 4 && load_be32(start.data()) == kMagic;
}

Result<Header> Header::read(const Storage& storage, Purpose purpose) {
  // Sufficient for the fixed fields; the rest of the cluster is read once its size is known.
  std::array<std::byte, kLengthV3> fixed{};
  ASSIGN_OR_RETURN(const size_t got, storage.read(HostOffset(0), fixed));
  if (got == 0) return corrupt("the file is empty");
  const bool salvage = purpose == Purpose::kSalvage;
  if (!has_magic(Bytes(fixed).first(got)) && !salvage) {
    const char* foreign = foreign_format(Bytes(fixed).first(got));
    if (foreign) return corrupt(fmt::format("not a QCOW2 image, but a {} one", foreign));
    if (const Compressor* const it = find_compressor(Bytes(fixed).first(got)))
      return fail(Error::unsupported(fmt::format("not a QCOW2 image, but compressed with {}: {}",
                                                 it->name, advice(*it, storage.name()))));
    return corrupt("not a QCOW2 image");
  }
  if (got < kLengthV2)
    return corrupt(fmt::format("the header is truncated: the file has {} bytes", got));

  Header header;
  const std::byte* from = fixed.data();
  header.version = load_be32(from + header_field::kVersion);
  if (salvage && header.version != 2) header.version = 3;
  if (header.version != 2 && header.version != 3)
    return fail(Error::unsupported(
        fmt::format("QCOW version {}: only 2 and 3 are supported", header.version)));
  const uint64_t backing_offset = load_be64(from + header_field::kBackingName);
  const uint32_t backing_length = load_be32(from + header_field::kBackingNameLength);
  header.cluster_bits = load_be32(from + header_field::kClusterBits);
  header.size = load_be64(from + header_field::kSize);
  header.crypt_method = static_cast<CryptMethod>(load_be32(from + header_field::kCryptMethod));
  header.l1_entries = load_be32(from + header_field::kL1Entries);
  header.l1_table = HostOffset(load_be64(from + header_field::kL1Table));
  header.refcount_table = HostOffset(load_be64(from + header_field::kRefcountTable));
  header.refcount_table_clusters = load_be32(from + header_field::kRefcountTableClusters);
  header.snapshot_count = load_be32(from + header_field::kSnapshotCount);
  header.snapshot_table = HostOffset(load_be64(from + header_field::kSnapshotTable));

  if (header.cluster_bits < Geometry::kMinClusterBits ||
      header.cluster_bits > Geometry::kMaxClusterBits)
    return corrupt(fmt::format("cluster_bits is {}: {} to {} are allowed", header.cluster_bits,
                               Geometry::kMinClusterBits, Geometry::kMaxClusterBits));
  const uint64_t cluster_size = uint64_t{1} << header.cluster_bits;

  header.header_length = kLengthV2;
  if (header.version == 3) {
    if (got < kMinLengthV3)
      return corrupt(fmt::format("the header is truncated: the file has {} bytes", got));
    header.incompatible_features = load_be64(from + header_field::kIncompatible);
    header.compatible_features = load_be64(from + header_field::kCompatible);
    header.autoclear_features = load_be64(from + header_field::kAutoclear);
    header.refcount_order = load_be32(from + header_field::kRefcountOrder);
    header.header_length = load_be32(from + header_field::kHeaderLength);
    const bool bad_length = header.header_length < kMinLengthV3 ||
                            header.header_length > cluster_size || header.header_length % 8 != 0;
    if (salvage && bad_length) header.header_length = kLengthV3;
    if (salvage && header.refcount_order > 6) header.refcount_order = 4;
    if (bad_length && !salvage)
      return corrupt(fmt::format("header_length is {}: a multiple of 8 from {} to {} is allowed",
                                 header.header_length, kMinLengthV3, cluster_size));
    if (header.refcount_order > 6)
      return corrupt(fmt::format("refcount_order is {}: 6 is the maximum", header.refcount_order));
  }

  // Extensions end at the backing file name, or at the end of the cluster.
  if (backing_offset > cluster_size)
    return corrupt(
        fmt::format("the backing file name at {:#x} is past the first cluster", backing_offset));
  if (backing_offset != 0 &&
      backing_length > std::min<uint64_t>(Limits::kBackingNameBytes, cluster_size - backing_offset))
    return corrupt(fmt::format("the backing file name at {:#x} has {} bytes: too many",
                               backing_offset, backing_length));
  // A short file may end inside its first cluster; the missing part reads as zeros.
  std::vector<std::byte> cluster(cluster_size);
  RETURN_IF_ERROR(storage.read(HostOffset(0), cluster));

  if (header.header_length > header_field::kCompressionType) {
    const auto type = std::to_integer<uint8_t>(cluster[header_field::kCompressionType]);
    if (type > static_cast<uint8_t>(CompressionType::kZstd))
      return fail(Error::unsupported(fmt::format("unknown compression type {}", type)));
    header.compression_type = static_cast<CompressionType>(type);
  }
  if (header.header_length > kLengthV3)
    header.unknown_fields.assign(cluster.begin() + kLengthV3,
                                 cluster.begin() + header.header_length);

  const size_t extensions_end =
      backing_offset != 0 ? std::max<uint64_t>(backing_offset, header.header_length) : cluster_size;
  // The content before a damaged extension is valid.
  if (auto read = read_extensions(header, cluster, extensions_end); !read && !salvage)
    return fail(std::move(read).error());
  if (backing_offset != 0)
    header.backing_file = name_text(Bytes(cluster).subspan(backing_offset, backing_length));
  RETURN_IF_ERROR(check_features(header, purpose));

  const bool type_bit = (header.incompatible_features & incompatible::kCompressionType) != 0;
  if (type_bit != (header.compression_type != CompressionType::kDeflate) && !salvage)
    return corrupt(fmt::format("the compression type is {}, but its feature bit is {}",
                               to_string(header.compression_type), type_bit ? "set" : "clear"));
  if (header.backing_file.find('\0') != std::string::npos)
    return corrupt("the backing file name holds a NUL byte");
  RETURN_IF_ERROR(check_tables(header, purpose));
  return header;
}

}  // namespace vc::qcow2
