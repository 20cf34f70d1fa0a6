// The QCOW2 header, its extensions and its names (qcow2 specification, "Header").
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "qcow2/format/geometry.h"
#include "storage/offset.h"
#include "storage/storage.h"

namespace vc::qcow2 {

inline constexpr uint32_t kMagic = 0x514649fb;  // "QFI\xfb"

namespace incompatible {
inline constexpr uint64_t kDirty = 1 << 0;
inline constexpr uint64_t kCorrupt = 1 << 1;
inline constexpr uint64_t kDataFile = 1 << 2;
inline constexpr uint64_t kCompressionType = 1 << 3;
inline constexpr uint64_t kExtendedL2 = 1 << 4;
inline constexpr uint64_t kKnown = (1 << 5) - 1;
}  // namespace incompatible

namespace compatible {
inline constexpr uint64_t kLazyRefcounts = 1 << 0;
}

namespace autoclear {
inline constexpr uint64_t kBitmaps = 1 << 0;
inline constexpr uint64_t kDataFileRaw = 1 << 1;
}  // namespace autoclear

enum class CompressionType : uint8_t { kDeflate = 0, kZstd = 1 };

// Returns "zlib" or "zstd", as in qemu-img.
const char* to_string(CompressionType type);

enum class CryptMethod : uint32_t { kNone = 0, kAes = 1, kLuks = 2 };

// An extension as in the file.  Unknown extensions are kept when the header is rewritten.
struct HeaderExtension {
  static constexpr uint32_t kEnd = 0;
  static constexpr uint32_t kBackingFormat = 0xe2792aca;
  static constexpr uint32_t kFeatureNames = 0x6803f857;
  static constexpr uint32_t kBitmaps = 0x23852875;
  static constexpr uint32_t kLuks = 0x0537be77;
  static constexpr uint32_t kDataFile = 0x44415441;

  uint32_t type = kEnd;
  std::vector<std::byte> data;
};

// Limits of QEMU, which this program also enforces.
struct Limits {
  static constexpr uint64_t kL1Bytes = 32 << 20;
  static constexpr uint64_t kRefcountTableBytes = 8 << 20;
  static constexpr uint32_t kSnapshots = 65536;
  static constexpr uint64_t kSnapshotTableBytes = 64 << 20;
  static constexpr uint32_t kSnapshotExtraBytes = 1024;
  static constexpr uint32_t kBackingNameBytes = 1023;
};

struct Header {
  static constexpr uint32_t kLengthV2 = 72;
  static constexpr uint32_t kMinLengthV3 = 104;
  static constexpr uint32_t kLengthV3 = 112;  // the length that this program writes

  uint32_t version = 3;
  unsigned cluster_bits = 16;
  uint64_t size = 0;  // of the virtual disk, in bytes
  CryptMethod crypt_method = CryptMethod::kNone;
  uint32_t l1_entries = 0;
  HostOffset l1_table;
  HostOffset refcount_table;
  uint32_t refcount_table_clusters = 0;
  uint32_t snapshot_count = 0;
  HostOffset snapshot_table;
  uint64_t incompatible_features = 0;
  uint64_t compatible_features = 0;
  uint64_t autoclear_features = 0;
  uint32_t refcount_order = 4;  // a refcount has 1 << refcount_order bits
  uint32_t header_length = kLengthV3;
  CompressionType compression_type = CompressionType::kDeflate;
  std::vector<std::byte> unknown_fields;  // header bytes past kLengthV3

  std::string backing_file;  // empty: none
  // In file order, including unknown ones. backing_format () and data_file () read from here.
  std::vector<HeaderExtension> extensions;

  Geometry geometry() const { return Geometry(cluster_bits, extended_l2()); }
  unsigned refcount_bits() const { return 1u << refcount_order; }
  bool extended_l2() const { return (incompatible_features & incompatible::kExtendedL2) != 0; }
  bool has_data_file() const { return (incompatible_features & incompatible::kDataFile) != 0; }

  const HeaderExtension* find_extension(uint32_t type) const;
  // Return the text of a string extension; nullopt if it is absent.
  std::optional<std::string> backing_format() const;
  std::optional<std::string> data_file() const;

  // Reads and validates the header: all fields are within the limits above, tables are aligned to
  // clusters and do not wrap, and names are in the first cluster. Does not check the content of
  // tables, nor whether they are within the file. Rejects encryption and unknown incompatible
  // features; names the feature as in the image's feature table.
  //
  // kUnlock is like kUse, but accepts encryption: for callers that have the keys, or need only
  // metadata, which is not encrypted.
  //
  // kCheck is for checks: the fields of the refcount table and of the snapshot table may have any
  // value, and encryption is no error, since metadata is not encrypted. kTell is only for reports,
  // and accepts encryption.
  //
  // kSalvage reads as much as possible of a damaged image that the user declares to be QCOW2. It is
  // like kCheck. The magic number and the version may be damaged, the L1
  // table may be too short, and invalid content after the first 72 bytes is ignored.
  enum class Purpose { kUse, kUnlock, kTell, kCheck, kSalvage };
  static Result<Header> read(const Storage& storage, Purpose purpose = Purpose::kUse);

  // Encodes the start of the first cluster: header, extensions, backing file name.  An error if it
  // does not fit into one cluster.
  Result<std::vector<std::byte>> encode() const;
};

// Returns whether `start`, the first bytes of a file, has the QCOW2 magic number.
bool has_magic(std::span<const std::byte> start);
// Returns the foreign image format that `start` (at least 512 bytes, to recognize all) belongs to,
// or nullptr.  Such a file is unlikely to be a raw disk.
const char* foreign_format(std::span<const std::byte> start);

// Returns an extension with QEMU's names of the known features.
HeaderExtension feature_name_table();

}  // namespace vc::qcow2
