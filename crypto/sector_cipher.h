// Encrypts and decrypts sectors of a disk.
//
// A disk is encrypted in sectors of 512 bytes.  The initial vector of a sector follows its number.
// Sources: QEMU's docs/interop/qcow2 and crypto/ivgen; "LUKS On-Disk Format Specification 1.2.3",
// "Cipher and mode".
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"

namespace vc::crypto {

// A cipher in the words of a LUKS header.
struct CipherSpec {
  std::string name;      // aes, serpent, twofish, cast5
  std::string mode;      // xts-plain64, cbc-essiv:sha256, …
  size_t key_bytes = 0;  // of the whole key; XTS uses two keys of half that size

  // Returns the words for people: "aes-256-xts-plain64".
  std::string text() const;
};

// Thread-safe: each call has its own context of the cipher.
class SectorCipher {
 public:
  static constexpr uint64_t kSectorSize = 512;

  // `key` must have `spec.key_bytes` bytes.  An error if the cipher, its mode, or the size of the
  // key is unknown.
  static Result<std::shared_ptr<const SectorCipher>> create(const CipherSpec& spec,
                                                            std::span<const std::byte> key);
  SectorCipher(const SectorCipher&) = delete;
  SectorCipher& operator=(const SectorCipher&) = delete;
  ~SectorCipher();

  const CipherSpec& spec() const;

  // Transform sectors in place; the first one is number `sector`.  The last one may be incomplete,
  // but must have a multiple of 16 bytes.
  Result<void> encrypt(uint64_t sector, std::span<std::byte> bytes) const;
  Result<void> decrypt(uint64_t sector, std::span<std::byte> bytes) const;

 private:
  class Impl;
  explicit SectorCipher(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace vc::crypto
