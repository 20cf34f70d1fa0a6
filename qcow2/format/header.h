// The QCOW2 header, its extensions and the names that it carries (QCOW2 text, "Header").
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

namespace qcow2 {

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

// "zlib" and "zstd", as qemu-img calls them.
const char* to_string(CompressionType type);

enum class CryptMethod : uint32_t { kNone = 0, kAes = 1, kLuks = 2 };

// An extension as it stands in the file.  Those that we do not know are kept through a rewrite.
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

// Limits that QEMU enforces, and so do we.
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
  static constexpr uint32_t kLengthV3 = 112;  // what we write

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
  // In the order of the file, unknown ones too.  backing_format () and data_file () read from here.
  std::vector<HeaderExtension> extensions;

  Geometry geometry() const { return Geometry(cluster_bits, extended_l2()); }
  unsigned refcount_bits() const { return 1u << refcount_order; }
  bool extended_l2() const { return (incompatible_features & incompatible::kExtendedL2) != 0; }
  bool has_data_file() const { return (incompatible_features & incompatible::kDataFile) != 0; }

  const HeaderExtension* find_extension(uint32_t type) const;
  // The text of a string extension; nothing when it is not there.
  std::optional<std::string> backing_format() const;
  std::optional<std::string> data_file() const;

  // Reads and validates: after this every field lies within the limits above, tables are aligned to
  // clusters and do not wrap, names lie in the first cluster.  Nothing is said of what the tables
  // hold, nor whether they lie within the file.  Refuses encryption, and unknown incompatible
  // features by the name that the image's feature table gives them.
  //
  // kCheck is for those who want to tell what is wrong: then the fields of the refcount table and
  // of the snapshot table may be anything, and encryption is no error, since metadata is in the
  // clear. kTell is for those who only say what there is: all is checked, but for encryption.
  //
  // kSalvage is for those who read what they can of what somebody says is a QCOW2 image: as
  // kCheck, but for encryption; the magic number and the version may be damaged, the L1 table may
  // be too short, and what is invalid after the first 72 bytes is left out.
  enum class Purpose { kUse, kTell, kCheck, kSalvage };
  static Result<Header> read(const Storage& storage, Purpose purpose = Purpose::kUse);

  // The start of the first cluster: header, extensions, backing file name.  An error if that does
  // not fit into one cluster.
  Result<std::vector<std::byte>> encode() const;
};

// Whether `start`, the first bytes of a file, begin as a QCOW2 image does.
bool has_magic(std::span<const std::byte> start);
// The name of the foreign image format that `start` (at least 512 bytes, to find all) belongs to,
// or nullptr.  Such a file is hardly meant as a raw disk.
const char* foreign_format(std::span<const std::byte> start);

// An extension with QEMU's names for the features that we know.
HeaderExtension feature_name_table();

}  // namespace qcow2
