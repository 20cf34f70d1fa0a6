#include "crypto/encrypted_storage.h"

#include <algorithm>
#include <thread>

#include "tests/catch_text.h"
#include "tests/support/memory_storage.h"
#include "tests/support/random.h"

using namespace vc;
using crypto::EncryptedStorage;
using crypto::SectorCipher;
using qcow2::MemoryStorage;

namespace {

std::shared_ptr<const SectorCipher> some_cipher() {
  std::vector<std::byte> key(64);
  for (size_t i = 0; i < key.size(); ++i) key[i] = static_cast<std::byte>(i);
  return *SectorCipher::create({"aes", "xts-plain64", 64}, key);
}

}  // namespace

TEST_CASE("reads return what was written, at any offset and length", "[encrypted]") {
  const uint64_t seed = support::base_seed();
  for (uint64_t i = 0; i < support::iterations(20); ++i) {
    CAPTURE(seed + i);
    support::Random random(seed + i);
    constexpr uint64_t kSize = 200 << 10;
    const auto below = std::make_shared<MemoryStorage>();
    EncryptedStorage storage(below, some_cipher());
    std::vector<std::byte> expected(kSize);
    REQUIRE_OK(storage.write_zeroes(HostOffset(0), kSize));
    for (unsigned step = 0; step < 50; ++step) {
      const uint64_t at = random.below(kSize);
      std::vector<std::byte> piece(random.between(1, std::min<uint64_t>(kSize - at, 5000)),
                                   static_cast<std::byte>(random.below(256)));
      REQUIRE_OK(storage.write(HostOffset(at), piece));
      std::copy(piece.begin(), piece.end(), expected.begin() + static_cast<ptrdiff_t>(at));
      const uint64_t from = random.below(kSize);
      std::vector<std::byte> got(random.between(1, kSize - from));
      REQUIRE(*storage.read(HostOffset(from), got) == got.size());
      REQUIRE(std::equal(got.begin(), got.end(), expected.begin() + static_cast<ptrdiff_t>(from)));
    }
    // Nothing is in the clear below.
    const auto raw = below->bytes();
    for (size_t at = 0; at < kSize; at += 512)
      REQUIRE_FALSE(std::equal(raw.begin() + static_cast<ptrdiff_t>(at),
                               raw.begin() + static_cast<ptrdiff_t>(at) + 512,
                               expected.begin() + static_cast<ptrdiff_t>(at)));
  }
}

TEST_CASE("an incomplete sector at the end of the file is not returned", "[encrypted]") {
  const auto below = std::make_shared<MemoryStorage>("short", std::vector<std::byte>(700));
  const EncryptedStorage storage(below, some_cipher());
  std::vector<std::byte> got(2048);
  CHECK(*storage.read(HostOffset(0), got) == 512);
  CHECK(*storage.read(HostOffset(10), std::span(got).first(600)) == 502);
  CHECK(*storage.read(HostOffset(512), got) == 0);
}

TEST_CASE("writes to parts of one sector from several threads are all kept", "[encrypted]") {
  const auto below = std::make_shared<MemoryStorage>();
  EncryptedStorage storage(below, some_cipher());
  REQUIRE_OK(storage.write_zeroes(HostOffset(0), 512));
  std::vector<std::thread> threads;
  constexpr size_t kThreads = 4;
  for (size_t t = 0; t < kThreads; ++t)
    threads.emplace_back([&storage, t] {
      const std::byte value = static_cast<std::byte>(t + 1);
      for (size_t at = t; at < 512; at += kThreads)
        (void)storage.write(HostOffset(at), std::span(&value, 1));
    });
  for (std::thread& it : threads) it.join();
  std::vector<std::byte> got(512);
  REQUIRE(*storage.read(HostOffset(0), got) == 512);
  for (size_t at = 0; at < 512; ++at) REQUIRE(got[at] == static_cast<std::byte>(at % kThreads + 1));
}
