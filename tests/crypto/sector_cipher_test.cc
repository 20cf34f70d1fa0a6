#include "crypto/sector_cipher.h"

#include <string>

#include "tests/catch_text.h"
#include "tests/support/random.h"

using namespace vc;
using crypto::CipherSpec;
using crypto::SectorCipher;

namespace {

std::vector<std::byte> bytes_of_hex(std::string_view hex) {
  std::vector<std::byte> bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes.push_back(static_cast<std::byte>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  return bytes;
}

std::vector<std::byte> random_bytes(support::Random& random, size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::byte& it : bytes) it = static_cast<std::byte>(random.below(256));
  return bytes;
}

}  // namespace

TEST_CASE("AES-128 with XTS gives the values of IEEE 1619", "[cipher]") {
  // Vector 4 of the standard: sector 0, 512 bytes 00 01 … ff 00 01 … ff.
  const auto cipher = SectorCipher::create({"aes", "xts-plain64", 32},
                                           bytes_of_hex("27182818284590452353602874713526"
                                                        "31415926535897932384626433832795"));
  REQUIRE_OK(cipher);
  std::vector<std::byte> data(512);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i);
  const auto plain = data;
  REQUIRE_OK((*cipher)->encrypt(0, data));
  const auto start = bytes_of_hex("27a7479befa1d476489f308cd4cfa6e2");
  CHECK(std::equal(start.begin(), start.end(), data.begin()));
  REQUIRE_OK((*cipher)->decrypt(0, data));
  CHECK(data == plain);
}

TEST_CASE("each cipher decrypts what it has encrypted, and the sector number matters", "[cipher]") {
  const uint64_t seed = support::base_seed();
  CAPTURE(seed);
  support::Random random(seed);
  const std::vector<CipherSpec> specs{
      {"aes", "xts-plain64", 64},     {"aes", "cbc-essiv:sha256", 32},
      {"aes", "cbc-plain", 16},       {"aes", "ctr-plain64", 24},
      {"serpent", "xts-plain64", 64}, {"serpent", "cbc-essiv:sha256", 32},
      {"twofish", "xts-plain64", 64}, {"twofish", "cbc-essiv:sha256", 16},
      {"cast5", "cbc-plain64", 16},
  };
  for (const CipherSpec& spec : specs) {
    CAPTURE(spec.text());
    const auto cipher = SectorCipher::create(spec, random_bytes(random, spec.key_bytes));
    REQUIRE_OK(cipher);
    const auto plain = random_bytes(random, 4 * 512);
    auto data = plain;
    REQUIRE_OK((*cipher)->encrypt(7, data));
    CHECK(data != plain);
    auto elsewhere = plain;
    REQUIRE_OK((*cipher)->encrypt(8, elsewhere));
    CHECK(data != elsewhere);
    // Sectors do not depend on each other.
    auto second = std::vector<std::byte>(data.begin() + 512, data.begin() + 1024);
    REQUIRE_OK((*cipher)->decrypt(8, second));
    CHECK(std::equal(second.begin(), second.end(), plain.begin() + 512));
    REQUIRE_OK((*cipher)->decrypt(7, data));
    CHECK(data == plain);
  }
}

TEST_CASE("'plain' has 32 bits of the sector number, 'plain64' all", "[cipher]") {
  const std::vector<std::byte> key(16, std::byte{1});
  const uint64_t far = (uint64_t{1} << 32) + 5;
  for (const bool wide : {false, true}) {
    const auto cipher = SectorCipher::create({"aes", wide ? "cbc-plain64" : "cbc-plain", 16}, key);
    REQUIRE_OK(cipher);
    std::vector<std::byte> a(512);
    std::vector<std::byte> b(512);
    REQUIRE_OK((*cipher)->encrypt(5, a));
    REQUIRE_OK((*cipher)->encrypt(far, b));
    CHECK((a == b) == !wide);
  }
}

TEST_CASE("unknown ciphers are refused by name", "[cipher]") {
  const auto create = [](const CipherSpec& spec) {
    return SectorCipher::create(spec, std::vector<std::byte>(spec.key_bytes, std::byte{3}));
  };
  REQUIRE_FAILS_WITH(create({"rot13", "xts-plain64", 64}), "rot13");
  REQUIRE_FAILS_WITH(create({"aes", "gcm-plain64", 32}), "gcm");
  REQUIRE_FAILS_WITH(create({"aes", "cbc", 32}), "initial vectors");
  REQUIRE_FAILS_WITH(create({"aes", "cbc-random", 32}), "random");
  REQUIRE_FAILS_WITH(create({"aes", "cbc-essiv:sha1", 32}), "essiv:sha1");
  REQUIRE_FAILS_WITH(create({"aes", "xts-plain64", 31}), "31 bytes");
  REQUIRE_FAILS_WITH(create({"cast5", "xts-plain64", 32}), "XTS");
}
