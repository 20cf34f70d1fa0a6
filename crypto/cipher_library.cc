#include "crypto/cipher_library.h"

#include <fmt/format.h>

#include <array>
#include <mutex>
#include <utility>

namespace vc::crypto {

namespace {

// The oldest version with XTS.
constexpr const char* kOldestVersion = "1.8.0";

bool start() {
  if (!gcry_check_version(kOldestVersion)) return false;
  if (gcry_control(GCRYCTL_INITIALIZATION_FINISHED_P)) return true;
  // Keys are wiped by their owners: locked memory would be too small for many threads.
  gcry_control(GCRYCTL_DISABLE_SECMEM, 0);
  gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
  return true;
}

}  // namespace

Result<void> start_gcrypt() {
  static const bool ready = start();
  if (ready) return {};
  return fail(Error::unsupported(fmt::format("libgcrypt is older than {}", kOldestVersion)));
}

Failure gcrypt_failure(gcry_error_t code, std::string_view what) {
  return fail(Error::unsupported(fmt::format("{}: {}", what, gcry_strerror(code))));
}

int hash_number(std::string_view name) {
  static constexpr std::array<std::pair<std::string_view, int>, 7> kHashes{{
      {"md5", GCRY_MD_MD5},
      {"ripemd160", GCRY_MD_RMD160},
      {"sha1", GCRY_MD_SHA1},
      {"sha224", GCRY_MD_SHA224},
      {"sha256", GCRY_MD_SHA256},
      {"sha384", GCRY_MD_SHA384},
      {"sha512", GCRY_MD_SHA512},
  }};
  for (const auto& [it, number] : kHashes)
    if (it == name) return number;
  return 0;
}

}  // namespace vc::crypto
