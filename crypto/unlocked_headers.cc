#include "crypto/unlocked_headers.h"

#include <algorithm>
#include <utility>

namespace vc::crypto {

std::shared_ptr<const SectorCipher> UnlockedHeaders::find(const Digest& header,
                                                          const KeyRing& keys) {
  const MutexLock lock(mutex_);
  std::erase_if(entries_, [](const auto& it) { return it.second.passphrase.expired(); });
  const auto found = entries_.find(header);
  if (found == entries_.end()) return nullptr;
  const auto passphrase = found->second.passphrase.lock();
  const bool has = std::find(keys.passphrases.begin(), keys.passphrases.end(), passphrase) !=
                   keys.passphrases.end();
  return has ? found->second.cipher : nullptr;
}

void UnlockedHeaders::add(const Digest& header, const std::shared_ptr<const Secret>& passphrase,
                          std::shared_ptr<const SectorCipher> cipher) {
  const MutexLock lock(mutex_);
  entries_.insert_or_assign(header, Entry{passphrase, std::move(cipher)});
}

}  // namespace vc::crypto
