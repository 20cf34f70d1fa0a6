#include "crypto/luks_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/byte_order.h"
#include "base/rounding.h"
#include "crypto/cipher_library.h"
#include "crypto/pbkdf2.h"
#include "crypto/unlocked_headers.h"

namespace vc::crypto {

namespace {

constexpr uint32_t kStripes = 4000;
constexpr uint32_t kFewestIterations = 1000;
// The alignment of key material, and so the offset of the first.
constexpr uint64_t kMaterialUnit = 4096;

Result<int> hash_of(const LuksHeader& header) {
  if (const int number = hash_number(header.hash)) return number;
  return fail(Error::unsupported(fmt::format("LUKS header: hash '{}' is unknown", header.hash)));
}

// Spreads each bit over a whole block: the anti-forensic splitter's H1.
void diffuse(int hash, std::span<std::byte> bytes) {
  const size_t digest_size = gcry_md_get_algo_dlen(hash);
  Secret input(4 + digest_size);
  Secret digest(digest_size);
  for (size_t at = 0; at < bytes.size(); at += digest_size) {
    const size_t length = std::min(digest_size, bytes.size() - at);
    store_be32(input.data(), static_cast<uint32_t>(at / digest_size));
    std::memcpy(input.data() + 4, bytes.data() + at, length);
    gcry_md_hash_buffer(hash, digest.data(), input.data(), 4 + length);
    std::memcpy(bytes.data() + at, digest.data(), length);
  }
}

void add(std::span<std::byte> to, std::span<const std::byte> from) {
  for (size_t i = 0; i < to.size(); ++i) to[i] ^= from[i];
}

// Combines all stripes but the last one into `sum`.
void combine(int hash, std::span<const std::byte> split, std::span<std::byte> sum) {
  const size_t size = sum.size();
  for (size_t at = 0; at + size < split.size(); at += size) {
    add(sum, split.subspan(at, size));
    diffuse(hash, sum);
  }
}

Secret merge(int hash, const Secret& split, size_t key_bytes) {
  Secret key(key_bytes);
  combine(hash, split.span(), key.span());
  add(key.span(), split.span().last(key_bytes));
  return key;
}

Secret split(int hash, const Secret& key, uint32_t stripes) {
  Secret result(key.size() * stripes);
  const auto last = result.span().last(key.size());
  gcry_randomize(result.data(), result.size() - key.size(), GCRY_STRONG_RANDOM);
  combine(hash, result.span(), last);
  add(last, key.span());
  return result;
}

Result<bool> is_master_key(const LuksHeader& header, int hash, const Secret& key,
                           const IsStopped& stopped) {
  std::array<std::byte, LuksHeader::kDigestBytes> digest{};
  RETURN_IF_ERROR(
      pbkdf2(hash, key.span(), header.digest_salt, header.digest_iterations, digest, stopped));
  return digest == header.digest;
}

// Returns the cipher of the key material of a slot.
Result<std::shared_ptr<const SectorCipher>> slot_cipher(const LuksHeader& header, int hash,
                                                        const LuksSlot& slot,
                                                        const Secret& passphrase,
                                                        const IsStopped& stopped = {}) {
  Secret key(header.cipher.key_bytes);
  RETURN_IF_ERROR(pbkdf2(hash, passphrase.span(), slot.salt, slot.iterations, key.span(), stopped));
  return SectorCipher::create(header.cipher, key.span());
}

// Returns the key in a slot, which is wrong if the passphrase is.
Result<Secret> open_slot(const LuksHeader& header, int hash, const LuksSlot& slot,
                         const Secret& passphrase, const IsStopped& stopped) {
  ASSIGN_OR_RETURN(const auto cipher, slot_cipher(header, hash, slot, passphrase, stopped));
  Secret material(header.split_bytes(slot));
  std::memcpy(material.data(), header.bytes.data() + slot.material, material.size());
  RETURN_IF_ERROR(cipher->decrypt(0, material.span()));
  return merge(hash, material, header.cipher.key_bytes);
}

// Returns the number of iterations that take `time` on this processor.
Result<uint32_t> iterations_for(int hash, size_t key_bytes, std::chrono::milliseconds time) {
  using Clock = std::chrono::steady_clock;
  const std::array<std::byte, LuksSlot::kSaltBytes> salt{};
  Secret key(key_bytes);
  constexpr std::chrono::milliseconds kEnough(20);
  for (uint32_t count = 1 << 13;; count *= 2) {
    const auto start = Clock::now();
    RETURN_IF_ERROR(pbkdf2(hash, salt, salt, count, key.span()));
    const std::chrono::duration<double> taken = Clock::now() - start;
    if (taken < kEnough && count < (1u << 24)) continue;
    const double wanted = count * (std::chrono::duration<double>(time) / taken);
    return static_cast<uint32_t>(std::clamp<double>(
        wanted, kFewestIterations, static_cast<double>(LuksHeader::kMostIterations)));
  }
}

std::string random_uuid() {
  std::array<unsigned char, 16> bytes{};
  gcry_create_nonce(bytes.data(), bytes.size());
  bytes[6] = static_cast<unsigned char>((bytes[6] & 0x0f) | 0x40);
  bytes[8] = static_cast<unsigned char>((bytes[8] & 0x3f) | 0x80);
  std::string text;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", bytes[i]);
  }
  return text;
}

// Places the key material of all slots, as QEMU does.
void place_slots(LuksHeader& header) {
  const uint64_t each = round_up(header.cipher.key_bytes * kStripes, kMaterialUnit);
  for (size_t i = 0; i < LuksHeader::kSlots; ++i) {
    header.slots[i].stripes = kStripes;
    header.slots[i].material = kMaterialUnit + i * each;
  }
  header.payload = kMaterialUnit + LuksHeader::kSlots * each;
  header.bytes.resize(header.payload);
}

Result<void> fill_slot(LuksHeader& header, int hash, LuksSlot& slot, const Secret& passphrase,
                       const Secret& master) {
  gcry_randomize(slot.salt.data(), slot.salt.size(), GCRY_STRONG_RANDOM);
  ASSIGN_OR_RETURN(const auto cipher, slot_cipher(header, hash, slot, passphrase));
  Secret material = split(hash, master, slot.stripes);
  RETURN_IF_ERROR(cipher->encrypt(0, material.span()));
  std::memcpy(header.bytes.data() + slot.material, material.data(), material.size());
  slot.active = true;
  return {};
}

UnlockedHeaders::Digest digest_of(const LuksHeader& header) {
  UnlockedHeaders::Digest digest{};
  gcry_md_hash_buffer(GCRY_MD_SHA256, digest.data(), header.bytes.data(), header.bytes.size());
  return digest;
}

UnlockedHeaders& unlocked_headers() {
  static UnlockedHeaders headers;
  return headers;
}

// Returns nullptr if the passphrase opens no slot.
Result<std::shared_ptr<const SectorCipher>> try_slots(const LuksHeader& header, int hash,
                                                      const Secret& passphrase,
                                                      const IsStopped& stopped) {
  for (const LuksSlot& slot : header.slots) {
    if (!slot.active) continue;
    ASSIGN_OR_RETURN(const Secret key, open_slot(header, hash, slot, passphrase, stopped));
    ASSIGN_OR_RETURN(const bool right, is_master_key(header, hash, key, stopped));
    if (right) return SectorCipher::create(header.cipher, key.span());
  }
  return std::shared_ptr<const SectorCipher>();
}

}  // namespace

Result<std::shared_ptr<const SectorCipher>> unlock(const LuksHeader& header, const KeyRing& keys) {
  RETURN_IF_ERROR(start_gcrypt());
  ASSIGN_OR_RETURN(const int hash, hash_of(header));
  // An unknown cipher is reported before the work.
  RETURN_IF_ERROR(SectorCipher::create(header.cipher, Secret(header.cipher.key_bytes).span()));
  const UnlockedHeaders::Digest digest = digest_of(header);
  if (auto known = unlocked_headers().find(digest, keys)) return known;
  for (const auto& passphrase : keys.passphrases) {
    ASSIGN_OR_RETURN(auto cipher, try_slots(header, hash, *passphrase, keys.stopped));
    if (!cipher) continue;
    unlocked_headers().add(digest, passphrase, cipher);
    return cipher;
  }
  return fail(Error::invalid(keys.passphrases.size() == 1
                                 ? "the passphrase opens none of its key slots: it is wrong"
                                 : "none of the passphrases opens one of its key slots"));
}

Result<void> check(const LuksOptions& options) {
  RETURN_IF_ERROR(start_gcrypt());
  if (hash_number(options.hash) == 0)
    return fail(Error::invalid(fmt::format("hash '{}' is unknown", options.hash)));
  // QEMU aborts on key material that does not fill its last sector.
  if (options.cipher.key_bytes * kStripes % SectorCipher::kSectorSize != 0)
    return fail(Error::invalid(fmt::format(
        "cipher '{}': QEMU cannot open a LUKS header with a key of {} bytes: use mode xts",
        options.cipher.text(), options.cipher.key_bytes)));
  // Two different halves: XTS may reject a key of zeros.
  Secret key(options.cipher.key_bytes);
  if (key.size() > 0) key.span().front() = std::byte{1};
  return SectorCipher::create(options.cipher, key.span()).map([](const auto&) {});
}

Result<LuksDisk> make_luks(const LuksOptions& options, const Secret& passphrase) {
  RETURN_IF_ERROR(check(options));
  LuksDisk disk;
  LuksHeader& header = disk.header;
  header.cipher = options.cipher;
  header.hash = options.hash;
  ASSIGN_OR_RETURN(const int hash, hash_of(header));
  Secret master(header.cipher.key_bytes);
  gcry_randomize(master.data(), master.size(), GCRY_STRONG_RANDOM);
  gcry_randomize(header.digest_salt.data(), header.digest_salt.size(), GCRY_STRONG_RANDOM);
  ASSIGN_OR_RETURN(const uint32_t digest_iterations,
                   iterations_for(hash, header.digest.size(), options.iteration_time / 8));
  header.digest_iterations = digest_iterations;
  RETURN_IF_ERROR(
      pbkdf2(hash, master.span(), header.digest_salt, header.digest_iterations, header.digest));
  header.uuid = random_uuid();
  place_slots(header);
  LuksSlot& slot = header.slots.front();
  ASSIGN_OR_RETURN(slot.iterations,
                   iterations_for(hash, header.cipher.key_bytes, options.iteration_time));
  RETURN_IF_ERROR(fill_slot(header, hash, slot, passphrase, master));
  header.store();
  ASSIGN_OR_RETURN(disk.cipher, SectorCipher::create(header.cipher, master.span()));
  return disk;
}

}  // namespace vc::crypto
