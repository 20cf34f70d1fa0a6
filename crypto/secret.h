// Passphrases and keys, which are wiped from memory after use.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace vc::crypto {

// Bytes that are overwritten before their memory is released.  Not copyable, so that each secret
// exists once.
class Secret {
 public:
  Secret() = default;
  // Allocates `size` bytes of zeros.
  explicit Secret(size_t size) : bytes_(size) {}
  explicit Secret(std::string_view text);
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;
  Secret(Secret&&) noexcept = default;
  Secret& operator=(Secret&& other) noexcept;
  ~Secret() { wipe(); }

  std::byte* data() { return bytes_.data(); }
  const std::byte* data() const { return bytes_.data(); }
  size_t size() const { return bytes_.size(); }
  std::span<std::byte> span() { return bytes_; }
  std::span<const std::byte> span() const { return bytes_; }
  std::string_view text() const {
    return {reinterpret_cast<const char*>(bytes_.data()), bytes_.size()};
  }

 private:
  void wipe() noexcept;

  std::vector<std::byte> bytes_;  // never grows: growth would leave a copy behind
};

// Overwrites the bytes.  The compiler does not remove this.
void wipe(std::span<std::byte> bytes) noexcept;

// The passphrases that may open the encrypted images of one chain.
struct KeyRing {
  std::vector<std::shared_ptr<const Secret>> passphrases;
  // Returns whether the user no longer waits for the work on key slots, which takes seconds, or
  // minutes for a hostile header.  Empty: never.
  std::function<bool()> stopped;

  void add(Secret secret) {
    passphrases.push_back(std::make_shared<const Secret>(std::move(secret)));
  }
  bool empty() const { return passphrases.empty(); }
};

}  // namespace vc::crypto
