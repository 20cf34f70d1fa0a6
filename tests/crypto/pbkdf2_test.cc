#include "crypto/pbkdf2.h"

#include <fmt/format.h>

#include <string>
#include <vector>

#include "base/byte_order.h"
#include "crypto/cipher_library.h"
#include "crypto/luks_keys.h"
#include "tests/catch_text.h"
#include "tests/support/memory_storage.h"

using namespace vc;

namespace {

std::string derived(const char* hash, const std::string& passphrase, const std::string& salt,
                    uint32_t iterations, size_t size) {
  REQUIRE_OK(crypto::start_gcrypt());
  std::vector<std::byte> key(size);
  REQUIRE_OK(crypto::pbkdf2(crypto::hash_number(hash), std::as_bytes(std::span(passphrase)),
                            std::as_bytes(std::span(salt)), iterations, key));
  std::string text;
  for (const std::byte it : key) text += fmt::format("{:02x}", std::to_integer<unsigned>(it));
  return text;
}

}  // namespace

TEST_CASE("keys are derived as Python's hashlib.pbkdf2_hmac derives them", "[luks]") {
  CHECK(derived("sha1", "password", "salt", 2, 50) ==
        "ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957cae93136266537a8d7bf4b76c51094cc1ae010b19923ddc439"
        "5cd064acb0");
  CHECK(derived("sha256", "", "0123456789abcdef", 20000, 64) ==
        "154c675a266aef53c29e0e86c270c602087386b802d4f630e1ce4106e1690e6607a06367c809b8b69db542f138"
        "a43c57c4dcbe5b30e408b00633fbd85bde06d6");
  CHECK(derived("sha512", std::string(200, 'x'), "s", 3, 64) ==
        "192f65e89dc69f2f7f71cc072312043885c4e585e0ac20db234c9afe4d17b8c6709c34c81f03c5e97bb4c07ce6"
        "ec927c9a77b3dc74a31f34f8832b27fd552904");
}

TEST_CASE("the work on a key slot can be stopped", "[luks]") {
  crypto::LuksOptions options;
  options.iteration_time = std::chrono::milliseconds(1);
  const auto made = crypto::make_luks(options, crypto::Secret("x"));
  REQUIRE_OK(made);
  auto bytes = made->header.bytes;
  constexpr size_t kIterationsOfSlot = 208 + 4;
  constexpr uint32_t kIterations = 1 << 20;
  store_be32(bytes.data() + kIterationsOfSlot, kIterations);
  const uint64_t length = bytes.size();
  const qcow2::MemoryStorage storage("disk", std::move(bytes));
  const auto header = crypto::LuksHeader::read(storage, HostOffset(0), length);
  REQUIRE_OK(header);
  crypto::KeyRing keys;
  keys.add(crypto::Secret("x"));
  unsigned asked = 0;
  keys.stopped = [&] { return ++asked == 3; };
  const auto opened = crypto::unlock(*header, keys);
  REQUIRE_FALSE(opened);
  CHECK(opened.error().kind() == Error::Kind::kCancelled);
  CHECK(asked == 3);
}
