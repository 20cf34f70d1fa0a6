// libgcrypt, made ready for use.
#pragma once

#include <gcrypt.h>

#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

namespace vc::crypto {

// Initializes the library, unless another part of the process has.  Must precede each other call.
Result<void> start_gcrypt();

// Returns an error with the library's text.
Failure gcrypt_failure(gcry_error_t code, std::string_view what);

struct CloseCipher {
  void operator()(gcry_cipher_handle* handle) const { gcry_cipher_close(handle); }
};
// Closing a handle wipes its key.
using CipherHandle = std::unique_ptr<gcry_cipher_handle, CloseCipher>;

// Returns libgcrypt's number of a hash with a name of LUKS ("sha256"); 0 if it is unknown.
int hash_number(std::string_view name);

}  // namespace vc::crypto
