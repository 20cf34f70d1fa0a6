// The encryption of a new image: encrypt.* of -o, as for qemu-img create.
#pragma once

#include <string>

#include "base/result.h"
#include "copy/sink/image_options.h"
#include "tool/options/disk_keys.h"

namespace vc::tool {

// The values as given; empty: not given.
struct EncryptionList {
  std::string format;
  std::string key_secret;
  std::string cipher_alg;
  std::string cipher_mode;
  std::string ivgen_alg;
  std::string ivgen_hash_alg;
  std::string hash_alg;
  std::string iter_time;

  bool given() const;
};

// Converts the list into `choice`, with its secret from `secrets`.  Unset values are those of QEMU:
// aes-256, xts, plain64, sha256, 2000 ms.
Result<void> resolve_encryption(const EncryptionList& list, const QemuSecrets& secrets,
                                copy::EncryptionChoice& choice);

}  // namespace vc::tool
