// libFuzzer target: takes any bytes as a LUKS header, tries a passphrase, and decrypts a sector.
//
//     meson setup build-fuzz -Dfuzzers=true   (with CXX=clang++-19)
//     build-fuzz/tests/fuzz/fuzz_luks CORPUS
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "crypto/luks_header.h"
#include "crypto/luks_keys.h"
#include "tests/support/memory_storage.h"

using namespace vc;

namespace {

// PBKDF2 takes most of the time of a key slot.
constexpr uint64_t kIterations = 100;

bool is_quick(const crypto::LuksHeader& header) {
  return header.digest_iterations <= kIterations &&
         std::all_of(header.slots.begin(), header.slots.end(), [](const crypto::LuksSlot& it) {
           return !it.active || it.iterations <= kIterations;
         });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  const qcow2::MemoryStorage storage("fuzz", std::vector<std::byte>(bytes, bytes + size));
  static_cast<void>(crypto::LuksHeader::read_disk(storage).has_value());
  auto header = crypto::LuksHeader::read(storage, HostOffset(0), size);
  if (!header || !is_quick(*header)) return 0;
  crypto::KeyRing keys;
  keys.add(crypto::Secret("x"));
  if (const auto cipher = crypto::unlock(*header, keys)) {
    std::vector<std::byte> sector(crypto::SectorCipher::kSectorSize);
    static_cast<void>((*cipher)->decrypt(1, sector).has_value());
  }
  return 0;
}
