#include "crypto/secret.h"

#include <cstring>
#include <utility>

namespace vc::crypto {

void wipe(std::span<std::byte> bytes) noexcept {
  if (!bytes.empty()) ::explicit_bzero(bytes.data(), bytes.size());
}

Secret::Secret(std::string_view text) : bytes_(text.size()) {
  if (!text.empty()) std::memcpy(bytes_.data(), text.data(), text.size());
}

Secret& Secret::operator=(Secret&& other) noexcept {
  if (this == &other) return *this;
  wipe();
  bytes_ = std::exchange(other.bytes_, {});
  return *this;
}

void Secret::wipe() noexcept {
  crypto::wipe(bytes_);
}

}  // namespace vc::crypto
