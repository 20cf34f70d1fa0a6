// The LUKS headers that this process has unlocked: a key slot costs seconds of work, and a command
// opens an image several times.
#pragma once

#include <array>
#include <cstddef>
#include <map>
#include <memory>

#include "base/mutex.h"
#include "crypto/secret.h"
#include "crypto/sector_cipher.h"

namespace vc::crypto {

// Thread-safe. Forgets a header when nothing holds the passphrase any more that has opened it.
class UnlockedHeaders {
 public:
  // SHA-256 of a whole header, with its key material.
  using Digest = std::array<std::byte, 32>;

  // Returns nullptr if none of the passphrases of `keys` has unlocked the header.
  std::shared_ptr<const SectorCipher> find(const Digest& header, const KeyRing& keys);
  void add(const Digest& header, const std::shared_ptr<const Secret>& passphrase,
           std::shared_ptr<const SectorCipher> cipher);

 private:
  struct Entry {
    std::weak_ptr<const Secret> passphrase;
    std::shared_ptr<const SectorCipher> cipher;
  };

  Mutex mutex_;
  std::map<Digest, Entry> entries_ GUARDED_BY(mutex_);
};

}  // namespace vc::crypto
