// The header of LUKS version 1: cipher, key slots, and the key material of the slots.
//
// Source: "LUKS On-Disk Format Specification 1.2.3", "LUKS header".  QEMU writes and reads this
// version only.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "crypto/sector_cipher.h"
#include "storage/offset.h"
#include "storage/storage.h"

namespace vc::crypto {

struct LuksSlot {
  static constexpr uint32_t kActive = 0x00ac71f3;
  static constexpr uint32_t kInactive = 0x0000dead;
  static constexpr size_t kSaltBytes = 32;

  bool active = false;
  uint32_t iterations = 0;  // of PBKDF2
  std::array<std::byte, kSaltBytes> salt{};
  uint64_t material = 0;  // offset of the key material in the header, bytes
  uint32_t stripes = 0;
};

struct LuksHeader {
  static constexpr size_t kBytes = 592;  // without the key material
  static constexpr size_t kSlots = 8;
  static constexpr size_t kDigestBytes = 20;
  static constexpr uint64_t kMostBytes = 32 << 20;  // with the key material
  // The most iterations of PBKDF2 for one key, and for all that a wrong passphrase causes.  A
  // header that asks for more would keep a reader busy for minutes, for each passphrase.
  static constexpr uint64_t kMostIterations = uint64_t{1} << 26;
  static constexpr uint64_t kMostIterationsTogether = uint64_t{1} << 27;

  CipherSpec cipher;
  std::string hash;
  uint64_t payload = 0;  // offset of the data in a disk that is all LUKS, bytes
  std::array<std::byte, kDigestBytes> digest{};
  std::array<std::byte, LuksSlot::kSaltBytes> digest_salt{};
  uint32_t digest_iterations = 0;
  std::string uuid;
  std::array<LuksSlot, kSlots> slots;

  // The whole header as in the file, with the key material.
  std::vector<std::byte> bytes;

  size_t split_bytes(const LuksSlot& slot) const { return cipher.key_bytes * slot.stripes; }

  // Reads the header of `length` bytes at `at`.  An error if it is damaged, of another version, or
  // asks for more work than the limits above.
  static Result<LuksHeader> read(const Storage& storage, HostOffset at, uint64_t length);
  // Reads the header of a disk that is all LUKS.
  static Result<LuksHeader> read_disk(const Storage& disk);

  // Encodes the fields into the first kBytes of `bytes`.
  void store();
};

// Returns whether these are the first bytes of a disk with a LUKS header of version 1.  QEMU takes
// disks of other versions as raw.
bool is_luks_disk(std::span<const std::byte> start);

}  // namespace vc::crypto
