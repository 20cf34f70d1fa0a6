#include "crypto/luks_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "base/byte_order.h"
#include "base/printable.h"

namespace vc::crypto {

namespace {

using Bytes = std::span<const std::byte>;

constexpr std::string_view kMagic = "LUKS\xba\xbe";
constexpr size_t kWord = 32;  // of a name
constexpr size_t kUuidBytes = 40;
constexpr size_t kLargestKey = 64;

// Offsets of the fields.
constexpr size_t kVersion = 6;
constexpr size_t kCipherName = 8;
constexpr size_t kCipherMode = 40;
constexpr size_t kHash = 72;
constexpr size_t kPayload = 104;
constexpr size_t kKeyBytes = 108;
constexpr size_t kDigest = 112;
constexpr size_t kDigestSalt = 132;
constexpr size_t kDigestIterations = 164;
constexpr size_t kUuid = 168;
constexpr size_t kFirstSlot = 208;
constexpr size_t kSlotBytes = 48;
constexpr size_t kSlotIterations = 4;
constexpr size_t kSlotSalt = 8;
constexpr size_t kSlotMaterial = 40;
constexpr size_t kSlotStripes = 44;

Failure corrupt(std::string message) {
  return fail(Error::corrupt("LUKS header: " + std::move(message)));
}

Failure unsupported(std::string message) {
  return fail(Error::unsupported("LUKS header: " + std::move(message)));
}

bool has_magic(Bytes start) {
  return start.size() >= kMagic.size() &&
         std::memcmp(start.data(), kMagic.data(), kMagic.size()) == 0;
}

std::string word_at(Bytes bytes, size_t at, size_t most) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data() + at), most);
  return std::string(text.substr(0, text.find('\0')));
}

void store_word(std::vector<std::byte>& bytes, size_t at, std::string_view word) {
  std::memcpy(bytes.data() + at, word.data(), word.size());
}

Result<void> check_iterations(const LuksHeader& header) {
  uint64_t together = 0;
  const auto check = [&](const std::string& what, uint64_t iterations) -> Result<void> {
    if (iterations == 0) return corrupt(what + " has no iterations of PBKDF2");
    if (iterations <= LuksHeader::kMostIterations) return {};
    return unsupported(
        fmt::format("{} needs {} iterations of PBKDF2: {} at most (set fewer with "
                    "cryptsetup luksChangeKey --pbkdf-force-iterations)",
                    what, iterations, LuksHeader::kMostIterations));
  };
  RETURN_IF_ERROR(check("the digest of the master key", header.digest_iterations));
  for (size_t i = 0; i < LuksHeader::kSlots; ++i) {
    if (!header.slots[i].active) continue;
    RETURN_IF_ERROR(check(fmt::format("key slot {}", i), header.slots[i].iterations));
    // The digest tells whether the passphrase opens the slot.
    together += uint64_t{header.slots[i].iterations} + header.digest_iterations;
  }
  if (together <= LuksHeader::kMostIterationsTogether) return {};
  return unsupported(
      fmt::format("its key slots, with their digests, need {} iterations of PBKDF2 together: {} at "
                  "most (remove key slots with cryptsetup luksKillSlot)",
                  together, LuksHeader::kMostIterationsTogether));
}

Result<void> check_slots(const LuksHeader& header, uint64_t length) {
  bool any = false;
  for (size_t i = 0; i < LuksHeader::kSlots; ++i) {
    const LuksSlot& slot = header.slots[i];
    if (!slot.active) continue;
    any = true;
    if (slot.stripes == 0) return corrupt(fmt::format("key slot {} has no stripes", i));
    if (slot.material < LuksHeader::kBytes || slot.material > length ||
        header.split_bytes(slot) > length - slot.material)
      return corrupt(
          fmt::format("the key material of slot {} at {:#x}, of {} bytes, is outside of the "
                      "header, which has {} bytes",
                      i, slot.material, header.split_bytes(slot), length));
  }
  return any ? Result<void>{} : corrupt("no key slot is in use: nothing can open it");
}

void load_slot(Bytes bytes, LuksSlot& slot, uint32_t& state) {
  state = load_be32(bytes.data());
  slot.active = state == LuksSlot::kActive;
  slot.iterations = load_be32(bytes.data() + kSlotIterations);
  std::copy_n(bytes.begin() + kSlotSalt, slot.salt.size(), slot.salt.begin());
  slot.material = load_be32(bytes.data() + kSlotMaterial) * SectorCipher::kSectorSize;
  slot.stripes = load_be32(bytes.data() + kSlotStripes);
}

Result<LuksHeader> parse(Bytes bytes) {
  if (!has_magic(bytes))
    return corrupt("it has no magic number of LUKS: it is damaged, or is no LUKS header");
  const unsigned version = std::to_integer<unsigned>(bytes[kVersion]) << 8 |
                           std::to_integer<unsigned>(bytes[kVersion + 1]);
  if (version != 1)
    return unsupported(
        fmt::format("version {}: only version 1 is supported, as in QEMU (cryptsetup open makes "
                    "the content of other versions a device, which can be read)",
                    version));
  LuksHeader header;
  header.cipher.name = word_at(bytes, kCipherName, kWord);
  header.cipher.mode = word_at(bytes, kCipherMode, kWord);
  header.cipher.key_bytes = load_be32(bytes.data() + kKeyBytes);
  header.hash = word_at(bytes, kHash, kWord);
  header.payload = load_be32(bytes.data() + kPayload) * SectorCipher::kSectorSize;
  std::copy_n(bytes.begin() + kDigest, header.digest.size(), header.digest.begin());
  std::copy_n(bytes.begin() + kDigestSalt, header.digest_salt.size(), header.digest_salt.begin());
  header.digest_iterations = load_be32(bytes.data() + kDigestIterations);
  header.uuid = printable(word_at(bytes, kUuid, kUuidBytes));
  for (size_t i = 0; i < LuksHeader::kSlots; ++i) {
    uint32_t state = 0;
    load_slot(bytes.subspan(kFirstSlot + i * kSlotBytes, kSlotBytes), header.slots[i], state);
    if (state != LuksSlot::kActive && state != LuksSlot::kInactive)
      return corrupt(fmt::format("key slot {} has the unknown state {:#x}", i, state));
  }
  if (header.cipher.key_bytes == 0 || header.cipher.key_bytes > kLargestKey)
    return corrupt(
        fmt::format("a master key of {} bytes: {} at most", header.cipher.key_bytes, kLargestKey));
  header.cipher.name = printable(header.cipher.name);
  header.cipher.mode = printable(header.cipher.mode);
  header.hash = printable(header.hash);
  RETURN_IF_ERROR(check_iterations(header));
  return header;
}

}  // namespace

bool is_luks_disk(std::span<const std::byte> start) {
  return start.size() >= kVersion + 2 && has_magic(start) && start[kVersion] == std::byte{0} &&
         start[kVersion + 1] == std::byte{1};
}

Result<LuksHeader> LuksHeader::read(const Storage& storage, HostOffset at, uint64_t length) {
  if (length < kBytes || length > kMostBytes)
    return corrupt(
        fmt::format("it has {} bytes: from {} to {} are possible", length, kBytes, kMostBytes));
  std::array<std::byte, kBytes> start{};
  RETURN_IF_ERROR(with_context(read_fully(storage, at, start), "LUKS header"));
  ASSIGN_OR_RETURN(LuksHeader header, parse(start));
  RETURN_IF_ERROR(check_slots(header, length));
  header.bytes.resize(length);
  RETURN_IF_ERROR(with_context(read_fully(storage, at, header.bytes), "LUKS header"));
  return header;
}

Result<LuksHeader> LuksHeader::read_disk(const Storage& disk) {
  std::array<std::byte, kBytes> start{};
  RETURN_IF_ERROR(with_context(read_fully(disk, HostOffset(0), start), "LUKS header"));
  ASSIGN_OR_RETURN(const LuksHeader header, parse(start));
  // Data may begin far after the key slots.
  return read(disk, HostOffset(0), std::min(header.payload, kMostBytes));
}

void LuksHeader::store() {
  std::memcpy(bytes.data(), kMagic.data(), kMagic.size());
  bytes[kVersion + 1] = std::byte{1};
  store_word(bytes, kCipherName, cipher.name);
  store_word(bytes, kCipherMode, cipher.mode);
  store_word(bytes, kHash, hash);
  store_be32(bytes.data() + kPayload, static_cast<uint32_t>(payload / SectorCipher::kSectorSize));
  store_be32(bytes.data() + kKeyBytes, static_cast<uint32_t>(cipher.key_bytes));
  std::copy(digest.begin(), digest.end(), bytes.begin() + kDigest);
  std::copy(digest_salt.begin(), digest_salt.end(), bytes.begin() + kDigestSalt);
  store_be32(bytes.data() + kDigestIterations, digest_iterations);
  store_word(bytes, kUuid, uuid);
  for (size_t i = 0; i < kSlots; ++i) {
    std::byte* const to = bytes.data() + kFirstSlot + i * kSlotBytes;
    const LuksSlot& slot = slots[i];
    store_be32(to, slot.active ? LuksSlot::kActive : LuksSlot::kInactive);
    store_be32(to + kSlotIterations, slot.iterations);
    std::copy(slot.salt.begin(), slot.salt.end(), to + kSlotSalt);
    store_be32(to + kSlotMaterial,
               static_cast<uint32_t>(slot.material / SectorCipher::kSectorSize));
    store_be32(to + kSlotStripes, slot.stripes);
  }
}

}  // namespace vc::crypto
