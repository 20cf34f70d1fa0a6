#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "base/byte_order.h"
#include "base/rounding.h"
#include "qcow2/format/header.h"
#include "qcow2/format/header_fields.h"

namespace vc::qcow2 {

namespace {

constexpr size_t pad8(size_t size) {
  return round_up(size, 8);
}

size_t extension_bytes(const HeaderExtension& extension) {
  return 8 + pad8(extension.data.size());
}

}  // namespace

HeaderExtension feature_name_table() {
  // Kind of feature (0 incompatible, 1 compatible, 2 autoclear), bit, and QEMU's name.
  struct Feature {
    uint8_t kind;
    uint8_t bit;
    std::string_view name;
  };
  static constexpr std::array<Feature, 8> kFeatures{{{0, 0, "dirty bit"},
                                                     {0, 1, "corrupt bit"},
                                                     {0, 2, "external data file"},
                                                     {0, 3, "compression type"},
                                                     {0, 4, "extended L2 entries"},
                                                     {1, 0, "lazy refcounts"},
                                                     {2, 0, "bitmaps"},
                                                     {2, 1, "raw external data"}}};
  constexpr size_t kEntry = 48;
  HeaderExtension table;
  table.type = HeaderExtension::kFeatureNames;
  table.data.resize(kFeatures.size() * kEntry);
  std::byte* at = table.data.data();
  for (const Feature& feature : kFeatures) {
    at[0] = std::byte{feature.kind};
    at[1] = std::byte{feature.bit};
    std::memcpy(at + 2, feature.name.data(), feature.name.size());
    at += kEntry;
  }
  return table;
}

Result<std::vector<std::byte>> Header::encode() const {
  const uint64_t cluster_size = uint64_t{1} << cluster_bits;
  const size_t fixed = version == 2 ? kLengthV2 : kLengthV3 + unknown_fields.size();
  size_t length = fixed;
  for (const HeaderExtension& extension : extensions) length += extension_bytes(extension);
  length += 8;  // for the end of the extensions
  const size_t backing_offset = length;
  length += backing_file.size();
  if (length > cluster_size)
    return fail(Error::invalid(fmt::format(
        "the header with its extensions and the backing file name needs {} bytes: more than a "
        "cluster, which has {}",
        length, cluster_size)));

  std::vector<std::byte> bytes(length);
  std::byte* const to = bytes.data();
  store_be32(to + header_field::kMagic, kMagic);
  store_be32(to + header_field::kVersion, version);
  if (!backing_file.empty()) {
    store_be64(to + header_field::kBackingName, backing_offset);
    store_be32(to + header_field::kBackingNameLength, static_cast<uint32_t>(backing_file.size()));
  }
  store_be32(to + header_field::kClusterBits, cluster_bits);
  store_be64(to + header_field::kSize, size);
  store_be32(to + header_field::kCryptMethod, static_cast<uint32_t>(crypt_method));
  store_be32(to + header_field::kL1Entries, l1_entries);
  store_be64(to + header_field::kL1Table, l1_table.value());
  store_be64(to + header_field::kRefcountTable, refcount_table.value());
  store_be32(to + header_field::kRefcountTableClusters, refcount_table_clusters);
  store_be32(to + header_field::kSnapshotCount, snapshot_count);
  store_be64(to + header_field::kSnapshotTable, snapshot_table.value());
  if (version >= 3) {
    store_be64(to + header_field::kIncompatible, incompatible_features);
    store_be64(to + header_field::kCompatible, compatible_features);
    store_be64(to + header_field::kAutoclear, autoclear_features);
    store_be32(to + header_field::kRefcountOrder, refcount_order);
    store_be32(to + header_field::kHeaderLength, static_cast<uint32_t>(fixed));
    to[header_field::kCompressionType] = static_cast<std::byte>(compression_type);
    std::copy(unknown_fields.begin(), unknown_fields.end(), bytes.begin() + kLengthV3);
  }
  std::byte* at = to + fixed;
  for (const HeaderExtension& extension : extensions) {
    store_be32(at, extension.type);
    store_be32(at + 4, static_cast<uint32_t>(extension.data.size()));
    std::copy(extension.data.begin(), extension.data.end(), at + 8);
    at += extension_bytes(extension);
  }
  std::memcpy(to + backing_offset, backing_file.data(), backing_file.size());
  return bytes;
}

}  // namespace vc::qcow2
