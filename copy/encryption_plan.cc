#include "copy/encryption_plan.h"

#include <fmt/format.h>

#include "crypto/luks_keys.h"

namespace vc::copy {

namespace {

using Planned = std::shared_ptr<const qcow2::Encryption>;

Result<Planned> new_encryption(const EncryptionChoice& choice) {
  if (!choice.passphrase)
    return fail(Error::invalid("encrypt.format: needs a passphrase (encrypt.key-secret)"));
  ASSIGN_OR_RETURN(crypto::LuksDisk disk, crypto::make_luks(*choice.luks, *choice.passphrase));
  auto encryption = std::make_shared<qcow2::Encryption>();
  encryption->header = std::move(disk.header.bytes);
  encryption->cipher = std::move(disk.cipher);
  return Planned(std::move(encryption));
}

}  // namespace

Result<Planned> plan_encryption(const EncryptionChoice& choice, const Source& source,
                                Container container) {
  if (container == Container::kNothing) return Planned();
  if (choice.luks && container == Container::kPlain)
    return fail(Error::invalid("encrypt.format: only a QCOW2 image can be encrypted"));
  if (choice.luks) return new_encryption(choice);
  const auto encrypted = source.encrypted_data();
  if (!encrypted || choice.decrypt) return Planned();
  if (container == Container::kPlain)
    return fail(
        Error::invalid(encrypted->file +
                       ": is encrypted, and the copy could not be: allow unencrypted data with "
                       "--decrypt, or copy it into a QCOW2 image, which keeps the encryption"));
  const Planned& top = encrypted->top;
  if (top && top->is_luks()) return top;
  return fail(Error::invalid(
      fmt::format("{}: {}: choose the encryption of the copy with -o encrypt.format=luks,"
                  "encrypt.key-secret=ID, or allow unencrypted data with --decrypt",
                  encrypted->file,
                  top ? "is encrypted with the old AES method, which cannot be written"
                      : "is encrypted, and the image that is copied is not")));
}

std::shared_ptr<const crypto::KeyRing> keys_of_copy(const EncryptionChoice& choice,
                                                    const qcow2::Trust& source) {
  if (!choice.luks) return source.keys;
  // A backing file that is kept may have its own.
  auto keys = std::make_shared<crypto::KeyRing>(source.keys ? *source.keys : crypto::KeyRing());
  keys->passphrases.insert(keys->passphrases.begin(), choice.passphrase);
  return keys;
}

}  // namespace vc::copy
