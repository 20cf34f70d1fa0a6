#include "crypto/sector_cipher.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "base/byte_order.h"
#include "crypto/cipher_library.h"
#include "crypto/secret.h"

namespace vc::crypto {

namespace {

constexpr size_t kLargestBlock = 16;  // bytes

struct Algorithm {
  std::string_view name;
  size_t key_bytes;
  int number;
};
constexpr std::array<Algorithm, 9> kAlgorithms{{
    {"aes", 16, GCRY_CIPHER_AES128},
    {"aes", 24, GCRY_CIPHER_AES192},
    {"aes", 32, GCRY_CIPHER_AES256},
    {"serpent", 16, GCRY_CIPHER_SERPENT128},
    {"serpent", 24, GCRY_CIPHER_SERPENT192},
    {"serpent", 32, GCRY_CIPHER_SERPENT256},
    {"twofish", 16, GCRY_CIPHER_TWOFISH128},
    {"twofish", 32, GCRY_CIPHER_TWOFISH},
    {"cast5", 16, GCRY_CIPHER_CAST5},
}};

int find_algorithm(std::string_view name, size_t key_bytes) {
  for (const Algorithm& it : kAlgorithms)
    if (it.name == name && it.key_bytes == key_bytes) return it.number;
  return GCRY_CIPHER_NONE;
}

struct Mode {
  std::string_view name;
  int number;
};
constexpr std::array<Mode, 4> kModes{{{"xts", GCRY_CIPHER_MODE_XTS},
                                      {"cbc", GCRY_CIPHER_MODE_CBC},
                                      {"ctr", GCRY_CIPHER_MODE_CTR},
                                      {"ecb", GCRY_CIPHER_MODE_ECB}}};

int find_mode(std::string_view name) {
  for (const Mode& it : kModes)
    if (it.name == name) return it.number;
  return GCRY_CIPHER_MODE_NONE;
}

Result<CipherHandle> open_cipher(int algorithm, int mode, std::span<const std::byte> key) {
  gcry_cipher_hd_t handle = nullptr;
  if (const auto code = gcry_cipher_open(&handle, algorithm, mode, 0))
    return gcrypt_failure(code, "cannot use the cipher");
  CipherHandle owned(handle);
  if (const auto code = gcry_cipher_setkey(handle, key.data(), key.size()))
    return gcrypt_failure(code, "cannot set the key of the cipher");
  return owned;
}

}  // namespace

std::string CipherSpec::text() const {
  const size_t bits = key_bytes * (mode.starts_with("xts") ? 4 : 8);
  return fmt::format("{}-{}-{}", name, bits, mode);
}

class SectorCipher::Impl {
 public:
  // How the initial vector follows the number of the sector.
  enum class Vector { kPlain, kPlain64, kEssiv };

  // What one thread uses at a time.
  struct Context {
    CipherHandle data;
    CipherHandle vector;  // ESSIV only
  };

  Result<void> set(const CipherSpec& wanted, std::span<const std::byte> key);
  Result<void> transform(uint64_t sector, std::span<std::byte> bytes, bool encrypts);

  CipherSpec spec;

 private:
  Result<void> set_vector(std::string_view words, std::span<const std::byte> key);
  Result<Context> take();
  Result<void> start_sector(const Context& context, uint64_t sector) const;

  int algorithm_ = GCRY_CIPHER_NONE;
  int mode_ = GCRY_CIPHER_MODE_NONE;
  Vector vector_ = Vector::kPlain64;
  int vector_algorithm_ = GCRY_CIPHER_NONE;
  size_t block_ = kLargestBlock;  // bytes
  Secret key_;
  Secret vector_key_;
  Mutex mutex_;
  std::vector<Context> idle_ GUARDED_BY(mutex_);
};

Result<void> SectorCipher::Impl::set_vector(std::string_view words,
                                            std::span<const std::byte> key) {
  if (words == "plain") {
    vector_ = Vector::kPlain;
    return {};
  }
  if (words == "plain64") {
    vector_ = Vector::kPlain64;
    return {};
  }
  constexpr std::string_view kEssiv = "essiv:";
  const int hash = words.starts_with(kEssiv) ? hash_number(words.substr(kEssiv.size())) : 0;
  if (hash == 0)
    return fail(Error::unsupported(
        fmt::format("initial vectors '{}': only plain, plain64 and essiv:HASH are known", words)));
  vector_ = Vector::kEssiv;
  vector_key_ = Secret(gcry_md_get_algo_dlen(hash));
  gcry_md_hash_buffer(hash, vector_key_.data(), key.data(), key.size());
  vector_algorithm_ = find_algorithm(spec.name, vector_key_.size());
  if (vector_algorithm_ == GCRY_CIPHER_NONE || block_ != kLargestBlock)
    return fail(Error::unsupported(
        fmt::format("initial vectors '{}' do not fit the cipher '{}'", words, spec.name)));
  return {};
}

Result<void> SectorCipher::Impl::set(const CipherSpec& wanted, std::span<const std::byte> key) {
  spec = wanted;
  const std::string_view mode = spec.mode;
  const size_t dash = mode.find('-');
  mode_ = find_mode(mode.substr(0, dash));
  if (mode_ == GCRY_CIPHER_MODE_NONE || dash == std::string_view::npos)
    return fail(Error::unsupported(fmt::format(
        "cipher mode '{}': only xts, cbc, ctr and ecb, with initial vectors, are known", mode)));
  const bool xts = mode_ == GCRY_CIPHER_MODE_XTS;
  algorithm_ = find_algorithm(spec.name, xts ? spec.key_bytes / 2 : spec.key_bytes);
  if (algorithm_ == GCRY_CIPHER_NONE || key.size() != spec.key_bytes ||
      (xts && spec.key_bytes % 2 != 0))
    return fail(
        Error::unsupported(fmt::format("cipher '{}' with a key of {} bytes in mode '{}' is unknown",
                                       spec.name, spec.key_bytes, mode)));
  block_ = gcry_cipher_get_algo_blklen(algorithm_);
  if (xts && block_ != kLargestBlock)
    return fail(Error::unsupported(fmt::format("cipher '{}' has no mode XTS", spec.name)));
  key_ = Secret(key.size());
  std::copy(key.begin(), key.end(), key_.data());
  RETURN_IF_ERROR(set_vector(mode.substr(dash + 1), key));
  // Reports what the library lacks at once.
  ASSIGN_OR_RETURN(auto context, take());
  const MutexLock lock(mutex_);
  idle_.push_back(std::move(context));
  return {};
}

Result<SectorCipher::Impl::Context> SectorCipher::Impl::take() {
  {
    const MutexLock lock(mutex_);
    if (!idle_.empty()) {
      Context context = std::move(idle_.back());
      idle_.pop_back();
      return context;
    }
  }
  Context context;
  ASSIGN_OR_RETURN(context.data, open_cipher(algorithm_, mode_, key_.span()));
  if (vector_ == Vector::kEssiv) {
    ASSIGN_OR_RETURN(context.vector,
                     open_cipher(vector_algorithm_, GCRY_CIPHER_MODE_ECB, vector_key_.span()));
  }
  return context;
}

Result<void> SectorCipher::Impl::start_sector(const Context& context, uint64_t sector) const {
  if (mode_ == GCRY_CIPHER_MODE_ECB) return {};
  std::array<std::byte, kLargestBlock> vector{};
  const size_t length = vector_ == Vector::kPlain ? 4 : 8;
  for (size_t i = 0; i < length; ++i) vector[i] = static_cast<std::byte>(sector >> (8 * i));
  gcry_error_t code = 0;
  if (vector_ == Vector::kEssiv)
    code = gcry_cipher_encrypt(context.vector.get(), vector.data(), vector.size(), nullptr, 0);
  if (code == 0)
    code = mode_ == GCRY_CIPHER_MODE_CTR
               ? gcry_cipher_setctr(context.data.get(), vector.data(), block_)
               : gcry_cipher_setiv(context.data.get(), vector.data(), block_);
  return code == 0 ? Result<void>{} : gcrypt_failure(code, "cannot set the initial vector");
}

Result<void> SectorCipher::Impl::transform(uint64_t sector, std::span<std::byte> bytes,
                                           bool encrypts) {
  if (bytes.size() % kLargestBlock != 0)
    return fail(Error::invalid(fmt::format("{} bytes are not whole blocks", bytes.size())));
  ASSIGN_OR_RETURN(Context context, take());
  const auto change = encrypts ? gcry_cipher_encrypt : gcry_cipher_decrypt;
  for (size_t at = 0; at < bytes.size(); at += kSectorSize) {
    RETURN_IF_ERROR(start_sector(context, sector + at / kSectorSize));
    const size_t length = std::min<size_t>(bytes.size() - at, kSectorSize);
    if (const auto code = change(context.data.get(), bytes.data() + at, length, nullptr, 0))
      return gcrypt_failure(code, "the cipher failed");
  }
  const MutexLock lock(mutex_);
  idle_.push_back(std::move(context));
  return {};
}

SectorCipher::SectorCipher(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

SectorCipher::~SectorCipher() = default;

Result<std::shared_ptr<const SectorCipher>> SectorCipher::create(const CipherSpec& spec,
                                                                 std::span<const std::byte> key) {
  RETURN_IF_ERROR(start_gcrypt());
  auto impl = std::make_unique<Impl>();
  RETURN_IF_ERROR(impl->set(spec, key));
  return std::shared_ptr<const SectorCipher>(new SectorCipher(std::move(impl)));
}

const CipherSpec& SectorCipher::spec() const {
  return impl_->spec;
}

Result<void> SectorCipher::encrypt(uint64_t sector, std::span<std::byte> bytes) const {
  return impl_->transform(sector, bytes, true);
}

Result<void> SectorCipher::decrypt(uint64_t sector, std::span<std::byte> bytes) const {
  return impl_->transform(sector, bytes, false);
}

}  // namespace vc::crypto
