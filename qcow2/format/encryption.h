// The encryption of an image: its method, its LUKS header, and the cipher once it is unlocked.
//
// With LUKS, the initial vectors follow the host offsets of clusters.  With the old AES method,
// they follow the guest offsets.  Source: qcow2 specification, "Full disk encryption header
// pointer", "Data encryption".
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/result.h"
#include "crypto/luks_header.h"
#include "crypto/secret.h"
#include "crypto/sector_cipher.h"
#include "qcow2/format/header.h"
#include "storage/storage.h"

namespace vc::qcow2 {

struct Encryption {
  CryptMethod method = CryptMethod::kLuks;
  // The whole LUKS header, with the key material; empty for AES.
  std::vector<std::byte> header;
  // nullptr: the image is locked, only its metadata can be read.
  std::shared_ptr<const crypto::SectorCipher> cipher;

  bool is_locked() const { return cipher == nullptr; }
  // Returns whether the storage of guest data encrypts by host offsets.
  bool is_luks() const { return method == CryptMethod::kLuks; }
};

// The place of the LUKS header in the image.
struct EncryptionPointer {
  static constexpr size_t kBytes = 16;  // of the header extension

  HostOffset at;
  uint64_t length = 0;  // bytes

  HeaderExtension encode() const;
};

// Returns the pointer of an image that is encrypted with LUKS.  An error if it is missing or
// invalid.
Result<EncryptionPointer> encryption_pointer(const Header& header);

// Reads the LUKS header of an image that is encrypted with LUKS.
Result<crypto::LuksHeader> read_luks_header(const Storage& image, const Header& header);

// Unlocks an encrypted image with one of `keys`.  An error if none fits.
Result<std::shared_ptr<const Encryption>> unlock(const Storage& image, const Header& header,
                                                 const crypto::KeyRing& keys);

// Unlocks a raw disk that is encrypted with LUKS: `payload` is the offset of its data, bytes.
struct UnlockedDisk {
  std::shared_ptr<const Encryption> encryption;
  uint64_t payload = 0;
};
Result<UnlockedDisk> unlock_disk(const Storage& disk, const crypto::KeyRing& keys);

}  // namespace vc::qcow2
