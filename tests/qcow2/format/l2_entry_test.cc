#include "qcow2/format/l2_entry.h"

#include "tests/catch_text.h"

using namespace qcow2;

TEST_CASE("a compressed descriptor is decoded as it was encoded, for every cluster size",
          "[l2_entry]") {
  const unsigned bits = GENERATE(range(9u, 22u));
  const uint64_t cluster = 1ULL << bits;
  const uint64_t top = (1ULL << CompressedDescriptor::offset_bits(bits)) - 1;
  for (const uint64_t offset : {uint64_t{0x10000}, uint64_t{0x10001}, uint64_t{0x101ff},
                                uint64_t{0x12345}, top - 2 * cluster}) {
    for (const uint64_t length : {uint64_t{1}, uint64_t{511}, cluster / 2, cluster - 1}) {
      const auto written = CompressedDescriptor::covering(HostOffset(offset), length);
      const auto read = CompressedDescriptor::decode(written.encode(bits), bits);
      CAPTURE(bits, offset, length);
      CHECK(read.offset == HostOffset(offset));
      CHECK(read.sectors == written.sectors);
      CHECK(read.readable_bytes() >= length);
      CHECK(read.readable_bytes() < length + 512);
      CHECK((offset + read.readable_bytes()) % 512 == 0);
    }
  }
}

TEST_CASE("descriptor fields are where the specification says", "[l2_entry]") {
  // 64 KiB clusters: x = 54.  Three sectors at 0x50123.
  const uint64_t entry = (1ULL << 62) | (2ULL << 54) | 0x50123;
  const auto descriptor = CompressedDescriptor::decode(entry, 16);
  CHECK(descriptor.offset == HostOffset(0x50123));
  CHECK(descriptor.sectors == 3);
  CHECK(descriptor.readable_bytes() == 3 * 512 - 0x123);
  CHECK(CompressedDescriptor::offset_bits(20) == 50);
  CHECK(CompressedDescriptor::offset_bits(21) == 49);
}

TEST_CASE("a standard entry", "[l2_entry]") {
  const L2Entry entry{0x8000000000050001, 0};
  CHECK(entry.copied());
  CHECK_FALSE(entry.compressed());
  CHECK(entry.zero_flag());
  CHECK(entry.host() == HostOffset(0x50000));
  // Reserved bits do not belong to the offset.
  CHECK(L2Entry{0x3f000000000501ff, 0}.host() == HostOffset(0x50000));
}
