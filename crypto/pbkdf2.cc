#include "crypto/pbkdf2.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>

#include "base/byte_order.h"
#include "crypto/cipher_library.h"
#include "crypto/secret.h"

namespace vc::crypto {

namespace {

// Some milliseconds of work.
constexpr uint32_t kIterationsAtOnce = 1 << 13;

struct CloseHash {
  void operator()(gcry_md_handle* handle) const { gcry_md_close(handle); }
};
using HashHandle = std::unique_ptr<gcry_md_handle, CloseHash>;

Result<HashHandle> open_hmac(int hash, std::span<const std::byte> passphrase) {
  // An empty passphrase has no address.
  static constexpr std::byte kNone{};
  const void* const text = passphrase.empty() ? &kNone : passphrase.data();
  gcry_md_hd_t handle = nullptr;
  auto code = gcry_md_open(&handle, hash, GCRY_MD_FLAG_HMAC);
  HashHandle hmac(handle);
  if (code == 0) code = gcry_md_setkey(handle, text, passphrase.size());
  if (code != 0) return gcrypt_failure(code, "PBKDF2 failed");
  return hmac;
}

void hash_into(gcry_md_handle* hmac, int hash, std::span<std::byte> digest) {
  std::memcpy(digest.data(), gcry_md_read(hmac, hash), digest.size());
  gcry_md_reset(hmac);
}

}  // namespace

// RFC 8018, section 5.2.
Result<void> pbkdf2(int hash, std::span<const std::byte> passphrase,
                    std::span<const std::byte> salt, uint32_t iterations, std::span<std::byte> key,
                    const IsStopped& stopped) {
  ASSIGN_OR_RETURN(const HashHandle hmac, open_hmac(hash, passphrase));
  const size_t digest_size = gcry_md_get_algo_dlen(hash);
  Secret digest(digest_size);
  Secret sum(digest_size);
  std::array<std::byte, 4> number{};
  for (size_t at = 0; at < key.size(); at += digest_size) {
    store_be32(number.data(), static_cast<uint32_t>(at / digest_size + 1));
    gcry_md_write(hmac.get(), salt.data(), salt.size());
    gcry_md_write(hmac.get(), number.data(), number.size());
    hash_into(hmac.get(), hash, digest.span());
    std::memcpy(sum.data(), digest.data(), digest_size);
    for (uint32_t i = 1; i < iterations; ++i) {
      if (i % kIterationsAtOnce == 0 && stopped && stopped()) return fail(Error::cancelled());
      gcry_md_write(hmac.get(), digest.data(), digest_size);
      hash_into(hmac.get(), hash, digest.span());
      for (size_t k = 0; k < digest_size; ++k) sum.data()[k] ^= digest.data()[k];
    }
    std::memcpy(key.data() + at, sum.data(), std::min(digest_size, key.size() - at));
  }
  return {};
}

}  // namespace vc::crypto
