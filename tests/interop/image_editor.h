// Changes bytes of a QCOW2 file, for contents that no tool makes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace vc::interop {

class ImageEditor {
 public:
  // Reads the whole file. save() writes it.
  explicit ImageEditor(const std::string& path);

  void save() const { save_as(path_); }
  void save_as(const std::string& path) const;

  std::vector<std::byte>& bytes() { return bytes_; }
  uint32_t get32(uint64_t at) const;
  uint64_t get64(uint64_t at) const;
  // Writes past the end grow the file.
  void put32(uint64_t at, uint32_t value);
  void put64(uint64_t at, uint64_t value);
  void put(uint64_t at, std::span<const std::byte> value);
  void put(uint64_t at, const std::string& value);

  // Offsets of header fields (QCOW2 specification, "Header").
  static constexpr uint64_t kVersion = 4;
  static constexpr uint64_t kBackingOffset = 8;
  static constexpr uint64_t kBackingLength = 16;
  static constexpr uint64_t kClusterBits = 20;
  static constexpr uint64_t kSize = 24;
  static constexpr uint64_t kCryptMethod = 32;
  static constexpr uint64_t kL1Size = 36;
  static constexpr uint64_t kL1Offset = 40;
  static constexpr uint64_t kRefcountTableOffset = 48;
  static constexpr uint64_t kRefcountTableClusters = 56;
  static constexpr uint64_t kSnapshotCount = 60;
  static constexpr uint64_t kSnapshotOffset = 64;
  static constexpr uint64_t kIncompatible = 72;
  static constexpr uint64_t kCompatible = 80;
  static constexpr uint64_t kAutoclear = 88;
  static constexpr uint64_t kRefcountOrder = 96;
  static constexpr uint64_t kHeaderLength = 100;
  static constexpr uint64_t kCompressionType = 104;

  uint64_t cluster_size() const { return uint64_t{1} << get32(kClusterBits); }
  // Returns the file offset of the L1 or L2 entry for a guest offset. The L2 table must exist.
  uint64_t l1_entry_at(uint64_t guest) const;
  uint64_t l2_entry_at(uint64_t guest) const;

  struct Extension {
    uint32_t type;
    std::vector<std::byte> data;
  };
  std::vector<Extension> extensions() const;
  // Rewrites the end of the header: the length, the extensions and the end mark. The image must
  // have no backing file name, since the name would follow the extensions.
  void put_extensions(uint32_t header_length, const std::vector<Extension>& extensions);

 private:
  bool extended_l2() const { return get32(kVersion) >= 3 && (get64(kIncompatible) & 16) != 0; }

  std::string path_;
  std::vector<std::byte> bytes_;
};

}  // namespace vc::interop
