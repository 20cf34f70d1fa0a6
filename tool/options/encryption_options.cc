#include "tool/options/encryption_options.h"

#include <fmt/format.h>

#include "tool/text/size_text.h"

namespace vc::tool {

namespace {

std::string or_default(const std::string& value, const char* usual) {
  return value.empty() ? usual : value;
}

// "aes-256" to the name and the bytes of the key.
Result<crypto::CipherSpec> parse_cipher(const EncryptionList& list) {
  const std::string word = or_default(list.cipher_alg, "aes-256");
  const size_t dash = word.rfind('-');
  if (dash == std::string::npos)
    return fail(Error::invalid(fmt::format("cipher '{}' is not NAME-BITS, as in aes-256", word)));
  ASSIGN_OR_RETURN(const uint64_t bits, parse_number(word.substr(dash + 1), 8, 512));
  const std::string mode = or_default(list.cipher_mode, "xts");
  const std::string ivgen = or_default(list.ivgen_alg, "plain64");
  crypto::CipherSpec spec;
  spec.name = word.substr(0, dash);
  spec.key_bytes = bits / 8 * (mode == "xts" ? 2 : 1);
  spec.mode = mode + "-" + ivgen;
  if (ivgen == "essiv") spec.mode += ":" + or_default(list.ivgen_hash_alg, "sha256");
  return spec;
}

}  // namespace

bool EncryptionList::given() const {
  for (const std::string* it : {&format, &key_secret, &cipher_alg, &cipher_mode, &ivgen_alg,
                                &ivgen_hash_alg, &hash_alg, &iter_time})
    if (!it->empty()) return true;
  return false;
}

Result<void> resolve_encryption(const EncryptionList& list, const QemuSecrets& secrets,
                                copy::EncryptionChoice& choice) {
  if (!list.given()) return {};
  if (choice.decrypt)
    return fail(Error::invalid("--decrypt and encrypt.format contradict each other"));
  if (list.format != "luks")
    return fail(
        Error::invalid(list.format.empty()
                           ? "encrypt.format=luks is missing: the other encrypt options need it"
                           : fmt::format("encrypt.format={}: only luks is supported, since the old "
                                         "AES method is insecure",
                                         list.format)));
  if (list.key_secret.empty())
    return fail(
        Error::invalid("encrypt.key-secret=ID is missing: the ID of --object secret,id=ID"));
  crypto::LuksOptions luks;
  ASSIGN_OR_RETURN(luks.cipher, with_context(parse_cipher(list), "encrypt.cipher-alg"));
  luks.hash = or_default(list.hash_alg, "sha256");
  if (!list.iter_time.empty()) {
    ASSIGN_OR_RETURN(const uint64_t time,
                     with_context(parse_number(list.iter_time, 1, 60000), "encrypt.iter-time"));
    luks.iteration_time = std::chrono::milliseconds(time);
  }
  RETURN_IF_ERROR(with_context(crypto::check(luks), "encrypt.format=luks"));
  ASSIGN_OR_RETURN(choice.passphrase,
                   with_context(secrets.find(list.key_secret), "encrypt.key-secret"));
  choice.luks = luks;
  return {};
}

}  // namespace vc::tool
