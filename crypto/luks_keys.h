// Opens the key slots of a LUKS header, and makes new headers.
//
// The key slots are not left to libcryptsetup: without the kernel's device mapper or its crypto
// API, as in most containers, it opens only slots of AES; and it does not bound the work for a
// header.
//
// Source: "LUKS On-Disk Format Specification 1.2.3", "Anti-forensic splitting", "LUKS operations".
#pragma once

#include <chrono>
#include <memory>

#include "base/result.h"
#include "crypto/luks_header.h"
#include "crypto/secret.h"
#include "crypto/sector_cipher.h"

namespace vc::crypto {

// Returns the cipher of the disk, with the master key that one of the passphrases opens.  An error
// if none does, and Error::cancelled() if KeyRing::stopped says so.
Result<std::shared_ptr<const SectorCipher>> unlock(const LuksHeader& header, const KeyRing& keys);

struct LuksOptions {
  CipherSpec cipher{"aes", "xts-plain64", 64};
  std::string hash = "sha256";
  std::chrono::milliseconds iteration_time{2000};  // for PBKDF2, when the passphrase is tried
};

// Checks the cipher and the hash.
Result<void> check(const LuksOptions& options);

// A new header with a random master key, which `passphrase` opens, and the cipher with that key.
struct LuksDisk {
  LuksHeader header;
  std::shared_ptr<const SectorCipher> cipher;
};
Result<LuksDisk> make_luks(const LuksOptions& options, const Secret& passphrase);

}  // namespace vc::crypto
