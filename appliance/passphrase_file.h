// Hands a passphrase to a server that this process starts.
#pragma once

#include <string>
#include <utility>

#include "base/result.h"
#include "crypto/secret.h"
#include "storage/descriptor.h"

namespace vc::appliance {

// A file in memory, without a name.  Only processes of the same user can open it, and only while
// this object lives.  It is in no argument list, and on no disk.
class PassphraseFile {
 public:
  // Returns an error if the passphrase cannot be the first line of a file.
  static Result<PassphraseFile> make(const crypto::Secret& passphrase);

  // Returns the path by which another process opens it.
  std::string path() const;

 private:
  explicit PassphraseFile(Descriptor file) : file_(std::move(file)) {}

  Descriptor file_;
};

}  // namespace vc::appliance
