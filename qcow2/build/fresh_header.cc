#include "qcow2/build/fresh_header.h"

#include <utility>

#include "qcow2/format/bitmap_directory.h"

namespace vc::qcow2 {

Result<Header> fresh_header(const BuildOptions& options, uint32_t l1_entries) {
  Header header;
  header.version = options.version;
  header.cluster_bits = options.cluster_bits;
  header.size = options.rounded_size();
  header.refcount_order = options.refcount_order;
  header.compression_type = options.compression_type;
  header.l1_entries = l1_entries;
  if (options.extended_l2) header.incompatible_features |= incompatible::kExtendedL2;
  if (options.compression_type != CompressionType::kDeflate)
    header.incompatible_features |= incompatible::kCompressionType;
  if (!options.data_file.empty()) {
    header.incompatible_features |= incompatible::kDataFile;
    if (options.data_file_raw) header.autoclear_features |= autoclear::kDataFileRaw;
    const auto name = std::as_bytes(std::span(options.data_file));
    header.extensions.push_back({HeaderExtension::kDataFile, {name.begin(), name.end()}});
  }
  if (options.lazy_refcounts) header.compatible_features |= compatible::kLazyRefcounts;
  if (options.encryption) {
    header.crypt_method = CryptMethod::kLuks;
    header.extensions.push_back(
        EncryptionPointer{HostOffset(0), options.encryption->header.size()}.encode());
  }
  if (!options.bitmaps.empty()) {
    header.autoclear_features |= autoclear::kBitmaps;
    header.extensions.push_back(bitmap_extension(0, 0, HostOffset(0)));
  }
  header.backing_file = options.backing_file;
  if (!options.backing_format.empty()) {
    const auto name = std::as_bytes(std::span(options.backing_format));
    header.extensions.push_back({HeaderExtension::kBackingFormat, {name.begin(), name.end()}});
  }
  if (options.version >= 3) {
    header.extensions.push_back(feature_name_table());
    // The names are optional; the smallest clusters may have no space for them.
    if (header.encode()) return header;
    header.extensions.pop_back();
  }
  auto encoded = header.encode();
  if (!encoded) return fail(std::move(encoded).error());
  return header;
}

}  // namespace vc::qcow2
