#include "crypto/luks_header.h"

#include "base/byte_order.h"
#include "crypto/luks_keys.h"
#include "tests/catch_text.h"
#include "tests/support/memory_storage.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;
using crypto::KeyRing;
using crypto::LuksHeader;
using crypto::LuksOptions;
using crypto::Secret;
using qcow2::MemoryStorage;

namespace {

LuksOptions quick() {
  LuksOptions options;
  options.iteration_time = std::chrono::milliseconds(1);
  return options;
}

KeyRing keys(std::initializer_list<std::string_view> texts) {
  KeyRing ring;
  for (const auto text : texts) ring.add(Secret(text));
  return ring;
}

Result<LuksHeader> read(std::vector<std::byte> bytes) {
  const uint64_t length = bytes.size();
  const MemoryStorage storage("disk", std::move(bytes));
  return LuksHeader::read(storage, HostOffset(0), length);
}

// Returns the header with a number changed.
std::vector<std::byte> changed(std::vector<std::byte> bytes, size_t at, uint32_t value) {
  store_be32(bytes.data() + at, value);
  return bytes;
}

}  // namespace

TEST_CASE("a new header opens with its passphrase, and with no other", "[luks]") {
  for (const crypto::CipherSpec& spec :
       {crypto::CipherSpec{"aes", "xts-plain64", 64}, crypto::CipherSpec{"aes", "xts-plain64", 48},
        crypto::CipherSpec{"serpent", "cbc-essiv:sha256", 32},
        crypto::CipherSpec{"cast5", "cbc-plain", 16}}) {
    CAPTURE(spec.text());
    LuksOptions options = quick();
    options.cipher = spec;
    options.hash = spec.name == "aes" ? "sha512" : "sha1";
    const auto made = crypto::make_luks(options, Secret("a passphrase"));
    REQUIRE_OK(made);
    const auto header = read(made->header.bytes);
    REQUIRE_OK(header);
    CHECK(header->cipher.text() == spec.text());
    CHECK(header->uuid == made->header.uuid);
    const auto opened = crypto::unlock(*header, keys({"another", "a passphrase"}));
    REQUIRE_OK(opened);
    std::vector<std::byte> a(512);
    std::vector<std::byte> b(512);
    REQUIRE_OK((*opened)->encrypt(3, a));
    REQUIRE_OK(made->cipher->encrypt(3, b));
    CHECK(a == b);
    REQUIRE_FAILS_WITH(crypto::unlock(*header, keys({"wrong"})), "it is wrong");
    REQUIRE_FAILS_WITH(crypto::unlock(*header, keys({"wrong", ""})), "none of the passphrases");
  }
}

TEST_CASE("the key slots of a header are opened once", "[luks]") {
  const auto made = crypto::make_luks(quick(), Secret("a passphrase"));
  REQUIRE_OK(made);
  const auto header = read(made->header.bytes);
  REQUIRE_OK(header);
  const KeyRing ring = keys({"another", "a passphrase"});
  const auto first = crypto::unlock(*header, ring);
  REQUIRE_OK(first);
  const KeyRing copy = ring;
  for (const KeyRing& it : {ring, copy}) {
    const auto again = crypto::unlock(*header, it);
    REQUIRE_OK(again);
    CHECK(*again == *first);
  }
  // Not for another header, nor with other passphrases.
  constexpr size_t kKeyMaterial = 4096;
  auto bytes = made->header.bytes;
  bytes[kKeyMaterial] ^= std::byte{1};
  const auto damaged = read(bytes);
  REQUIRE_OK(damaged);
  REQUIRE_FAILS_WITH(crypto::unlock(*damaged, ring), "none of the passphrases");
  REQUIRE_FAILS_WITH(crypto::unlock(*header, keys({"wrong"})), "it is wrong");
  const auto later = crypto::unlock(*header, keys({"a passphrase"}));
  REQUIRE_OK(later);
  CHECK(*later != *first);
}

TEST_CASE("no header is made that QEMU cannot open", "[luks]") {
  LuksOptions options = quick();
  options.cipher = {"aes", "cbc-plain64", 24};
  REQUIRE_FAILS_WITH(crypto::make_luks(options, Secret("x")), "QEMU cannot open");
}

TEST_CASE("an empty passphrase is one", "[luks]") {
  const auto made = crypto::make_luks(quick(), Secret(""));
  REQUIRE_OK(made);
  REQUIRE_OK(crypto::unlock(made->header, keys({""})));
}

TEST_CASE("QEMU opens a new header", "[luks]") {
  const support::TempDirectory folder;
  const auto made = crypto::make_luks(quick(), Secret("a passphrase"));
  REQUIRE_OK(made);
  auto bytes = made->header.bytes;
  std::vector<std::byte> data(1 << 20);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i * 7 / 3);
  const auto plain = data;
  REQUIRE_OK(made->cipher->encrypt(0, data));
  bytes.insert(bytes.end(), data.begin(), data.end());
  const std::string disk = folder / "disk.luks";
  support::write_file(disk, bytes);
  const std::string raw = folder / "disk.raw";
  const auto run = support::run({"qemu-img", "convert", "--object", "secret,id=s,data=a passphrase",
                                 "--image-opts", "-O", "raw",
                                 "driver=luks,key-secret=s,file.filename=" + disk, raw});
  INFO(run.describe());
  REQUIRE(run.ok());
  CHECK(support::read_file(raw) == plain);
}

TEST_CASE("the data of a disk may begin far after its key slots", "[luks]") {
  const auto made = crypto::make_luks(quick(), Secret("x"));
  REQUIRE_OK(made);
  auto bytes = changed(made->header.bytes, 104, (64 << 20) / 512);
  bytes.resize(LuksHeader::kMostBytes);
  const MemoryStorage disk("disk", std::move(bytes));
  const auto header = LuksHeader::read_disk(disk);
  REQUIRE_OK(header);
  CHECK(header->payload == 64 << 20);
  REQUIRE_OK(crypto::unlock(*header, keys({"x"})));
}

TEST_CASE("the words of a header are printable, and end with it", "[luks]") {
  const auto made = crypto::make_luks(quick(), Secret("x"));
  REQUIRE_OK(made);
  auto bytes = made->header.bytes;
  std::fill_n(bytes.begin() + 168, 40, std::byte{0xff});
  const auto header = read(bytes);
  REQUIRE_OK(header);
  CHECK(std::all_of(header->uuid.begin(), header->uuid.end(),
                    [](char c) { return c >= ' ' && c <= '~'; }));
  CHECK(header->uuid.size() <= 40 * 4);
}

TEST_CASE("damaged and hostile headers are errors that say what is wrong", "[luks]") {
  const auto made = crypto::make_luks(quick(), Secret("x"));
  REQUIRE_OK(made);
  const auto& good = made->header.bytes;
  REQUIRE_OK(read(good));
  constexpr size_t kSlot = 208;
  REQUIRE_FAILS_WITH(read(changed(good, 0, 0)), "magic");
  REQUIRE_FAILS_WITH(read(changed(good, 4, 0xbabe0002)), "version 2");
  REQUIRE_FAILS_WITH(read(changed(good, 108, 0)), "a master key of 0 bytes");
  REQUIRE_FAILS_WITH(read(changed(good, 108, 0xffffffff)), "master key");
  REQUIRE_FAILS_WITH(read(changed(good, 164, 0)), "digest of the master key has no iterations");
  REQUIRE_FAILS_WITH(read(changed(good, 164, 0xffffffff)), "4294967295 iterations");
  REQUIRE_FAILS_WITH(read(changed(good, kSlot, 1)), "key slot 0 has the unknown state 0x1");
  REQUIRE_FAILS_WITH(read(changed(good, kSlot, 0xdead)), "no key slot is in use");
  REQUIRE_FAILS_WITH(read(changed(good, kSlot + 4, 0)), "key slot 0 has no iterations");
  REQUIRE_FAILS_WITH(read(changed(good, kSlot + 4, 0x7fffffff)), "2147483647 iterations");
  REQUIRE_FAILS_WITH(read(changed(good, kSlot + 40, 0)), "outside of the header");
  REQUIRE_FAILS_WITH(read(changed(good, kSlot + 40, 0xffffffff)), "outside of the header");
  REQUIRE_FAILS_WITH(read(changed(good, kSlot + 44, 0)), "no stripes");
  REQUIRE_FAILS_WITH(read(changed(good, kSlot + 44, 0xffffffff)), "outside of the header");
  REQUIRE_FAILS_WITH(read({}), "0 bytes");
  REQUIRE_FAILS_WITH(read(std::vector<std::byte>(good.begin(), good.begin() + 5000)),
                     "outside of the header");
  auto together = good;
  for (size_t i = 0; i < LuksHeader::kSlots; ++i) {
    std::copy_n(good.begin() + kSlot, 48,
                together.begin() + static_cast<ptrdiff_t>(kSlot + i * 48));
    store_be32(together.data() + kSlot + i * 48 + 4, 1 << 26);
  }
  REQUIRE_FAILS_WITH(read(together), "together");
  // Each slot costs the digest, too.
  auto digests = changed(good, 164, 1 << 26);
  for (size_t i = 1; i < 3; ++i)
    std::copy_n(good.begin() + kSlot, 48, digests.begin() + static_cast<ptrdiff_t>(kSlot + i * 48));
  REQUIRE_FAILS_WITH(read(digests), "together");
  // Unknown words are reported when it is opened.
  const auto unknown = [&](size_t at) {
    const auto header = read(changed(good, at, 0x78797a00));
    REQUIRE_OK(header);
    return crypto::unlock(*header, keys({"x"}));
  };
  REQUIRE_FAILS_WITH(unknown(8), "xyz");
  REQUIRE_FAILS_WITH(unknown(40), "xyz");
  REQUIRE_FAILS_WITH(unknown(72), "xyz");
}
