#include "qcow2/format/encryption.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/byte_order.h"
#include "crypto/luks_keys.h"

namespace vc::qcow2 {

namespace {

constexpr size_t kAesKeyBytes = 16;

// The old method uses the passphrase itself as the key, cut or padded with zeros.  So each
// passphrase fits: a wrong one gives random data.
Result<std::shared_ptr<const Encryption>> unlock_aes(const crypto::KeyRing& keys) {
  const crypto::Secret& passphrase = *keys.passphrases.front();
  for (const auto& it : keys.passphrases)
    if (it->text() != passphrase.text())
      return fail(
          Error::invalid("the old AES method does not detect a wrong passphrase: give only one"));
  crypto::Secret key(kAesKeyBytes);
  std::copy_n(passphrase.data(), std::min(passphrase.size(), kAesKeyBytes), key.data());
  auto encryption = std::make_shared<Encryption>();
  encryption->method = CryptMethod::kAes;
  ASSIGN_OR_RETURN(encryption->cipher,
                   crypto::SectorCipher::create({"aes", "cbc-plain64", kAesKeyBytes}, key.span()));
  return std::shared_ptr<const Encryption>(std::move(encryption));
}

Result<std::shared_ptr<const Encryption>> unlock_luks(crypto::LuksHeader header,
                                                      const crypto::KeyRing& keys) {
  auto encryption = std::make_shared<Encryption>();
  ASSIGN_OR_RETURN(encryption->cipher, crypto::unlock(header, keys));
  encryption->header = std::move(header.bytes);
  return std::shared_ptr<const Encryption>(std::move(encryption));
}

// A part of a sector cannot be decrypted.
Result<void> check_whole_sectors(const Storage& disk) {
  constexpr uint64_t kSector = crypto::SectorCipher::kSectorSize;
  ASSIGN_OR_RETURN(const uint64_t size, disk.size());
  if (size % kSector == 0) return {};
  return fail(Error::invalid(fmt::format(
      "the LUKS disk ends at {:#x}, within an encrypted sector of {} bytes: its end was cut off, "
      "or "
      "something was appended. Copy the file, and remove the part of a sector from the copy with "
      "truncate -s {}",
      size, kSector, size - size % kSector)));
}

}  // namespace

HeaderExtension EncryptionPointer::encode() const {
  HeaderExtension extension;
  extension.type = HeaderExtension::kLuks;
  extension.data.resize(kBytes);
  store_be64(extension.data.data(), at.value());
  store_be64(extension.data.data() + 8, length);
  return extension;
}

Result<EncryptionPointer> encryption_pointer(const Header& header) {
  const HeaderExtension* const found = header.find_extension(HeaderExtension::kLuks);
  if (!found)
    return fail(Error::corrupt(
        "the image is encrypted with LUKS, but the header extension that names the place of the "
        "LUKS header is missing"));
  if (found->data.size() != EncryptionPointer::kBytes)
    return fail(Error::corrupt(fmt::format("the header extension of LUKS has {} bytes, not {}",
                                           found->data.size(), EncryptionPointer::kBytes)));
  const EncryptionPointer pointer{HostOffset(load_be64(found->data.data())),
                                  load_be64(found->data.data() + 8)};
  const uint64_t at = pointer.at.value();
  if (at == 0 || header.geometry().offset_in_cluster(at) != 0 ||
      pointer.length > crypto::LuksHeader::kMostBytes ||
      at > static_cast<uint64_t>(INT64_MAX) - pointer.length)
    return fail(Error::corrupt(
        fmt::format("the LUKS header at {:#x}, of {} bytes, has an invalid place or length", at,
                    pointer.length)));
  return pointer;
}

Result<crypto::LuksHeader> read_luks_header(const Storage& image, const Header& header) {
  ASSIGN_OR_RETURN(const EncryptionPointer pointer, encryption_pointer(header));
  return crypto::LuksHeader::read(image, pointer.at, pointer.length);
}

Result<std::shared_ptr<const Encryption>> unlock(const Storage& image, const Header& header,
                                                 const crypto::KeyRing& keys) {
  if (keys.empty()) return fail(Error::invalid("no passphrase is given"));
  if (header.crypt_method == CryptMethod::kAes) return unlock_aes(keys);
  ASSIGN_OR_RETURN(crypto::LuksHeader luks, read_luks_header(image, header));
  return unlock_luks(std::move(luks), keys);
}

Result<UnlockedDisk> unlock_disk(const Storage& disk, const crypto::KeyRing& keys) {
  UnlockedDisk result;
  ASSIGN_OR_RETURN(crypto::LuksHeader luks, crypto::LuksHeader::read_disk(disk));
  result.payload = luks.payload;
  RETURN_IF_ERROR(check_whole_sectors(disk));
  ASSIGN_OR_RETURN(result.encryption, unlock_luks(std::move(luks), keys));
  return result;
}

}  // namespace vc::qcow2
