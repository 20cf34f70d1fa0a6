// Decides whether a copy is encrypted, and with which key.
#pragma once

#include <memory>

#include "base/result.h"
#include "copy/sink/image_options.h"
#include "copy/source/source.h"
#include "qcow2/format/encryption.h"
#include "qcow2/read/trust.h"

namespace vc::copy {

// What a copy is written to, as far as encryption is concerned.
enum class Container {
  kQcow2,    // can be encrypted
  kPlain,    // cannot: a raw disk, a server
  kNothing,  // keeps no data
};

// Returns the encryption of a new image; nullptr: none.  Without another choice, a copy of a disk
// that is encrypted with LUKS has the same LUKS header and the same master key.  Data that is
// encrypted in the source is written unencrypted only if the user chose that: else it is an error.
Result<std::shared_ptr<const qcow2::Encryption>> plan_encryption(const EncryptionChoice& choice,
                                                                 const Source& source,
                                                                 Container container);

// Returns the passphrases that open the copy.
std::shared_ptr<const crypto::KeyRing> keys_of_copy(const EncryptionChoice& choice,
                                                    const qcow2::Trust& source);

}  // namespace vc::copy
