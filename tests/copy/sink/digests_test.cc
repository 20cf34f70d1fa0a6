#include "copy/sink/digests.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "tests/catch_text.h"
#include "tests/copy/disks.h"
#include "tests/support/random.h"

using namespace vc;

using copy::Digests;
using Ranges = std::vector<Digests::Range>;

namespace {

constexpr uint64_t kMiB = 1 << 20;

Digests::Range range(uint64_t begin, uint64_t end) {
  return {GuestOffset(begin), GuestOffset(end)};
}

// Adds a whole disk at once.
void add_whole(Digests& digests, const std::vector<std::byte>& disk) {
  digests.add(GuestOffset(0), disk);
}

// Adds a disk in pieces of random lengths, in random order. Sometimes omits pieces of zeros.
void add_in_portions(Digests& digests, const std::vector<std::byte>& disk, uint64_t granule,
                     support::Random& random) {
  std::vector<std::pair<size_t, size_t>> portions;
  for (size_t at = 0; at < disk.size();) {
    const size_t length = std::min<size_t>(granule * random.between(1, 40), disk.size() - at);
    portions.emplace_back(at, length);
    at += length;
  }
  for (size_t i = portions.size(); i > 1; --i)
    std::swap(portions[i - 1], portions[random.below(i)]);
  for (const auto& [at, length] : portions) {
    const auto bytes = std::span(disk).subspan(at, length);
    const bool zeros =
        std::all_of(bytes.begin(), bytes.end(), [](std::byte it) { return it == std::byte{0}; });
    if (!zeros || random.chance(50)) digests.add(GuestOffset(at), bytes);
  }
}

}  // namespace

TEST_CASE("digests do not depend on order and sizes of pieces", "[digests]") {
  const uint64_t seed = support::base_seed();
  for (uint64_t i = 0; i < support::iterations(30); ++i) {
    INFO(fmt::format("VIRT_COMPACT_SEED={}", seed + i));
    support::Random random(seed + i);
    const uint64_t granule = uint64_t{512} << random.below(13);
    const auto disk = test::lived_in_bytes(seed + i, random.between(1, 5 * kMiB));
    Digests whole(disk.size(), granule);
    Digests parts(disk.size(), granule);
    add_whole(whole, disk);
    add_in_portions(parts, disk, granule, random);
    CHECK(whole.differences(parts).empty());
  }
}

TEST_CASE("a difference of one bit is found, with its place", "[digests]") {
  const uint64_t seed = support::base_seed();
  support::Random random(seed);
  INFO(fmt::format("VIRT_COMPACT_SEED={}", seed));
  const size_t size = 5 * kMiB + 777;
  auto disk = test::lived_in_bytes(seed, size);
  Digests before(size, 4096);
  add_whole(before, disk);
  for (uint64_t i = 0; i < support::iterations(200); ++i) {
    const size_t at = i == 0 ? 0 : i == 1 ? size - 1 : random.below(size);
    CAPTURE(at);
    const auto flip = std::byte(1 << random.below(8));
    disk[at] ^= flip;
    Digests after(size, 4096);
    add_whole(after, disk);
    const uint64_t region = at / kMiB * kMiB;
    CHECK(before.differences(after) ==
          Ranges{range(region, std::min<uint64_t>(region + kMiB, size))});
    disk[at] ^= flip;
  }
}

TEST_CASE("the same bytes at another offset differ", "[digests]") {
  std::vector<std::byte> disk(4 * kMiB);
  std::memset(disk.data() + 4096, 1, 4096);
  std::memset(disk.data() + 8192, 2, 4096);
  Digests before(disk.size(), 4096);
  add_whole(before, disk);
  SECTION("swapped within a region") {
    std::swap_ranges(disk.begin() + 4096, disk.begin() + 8192, disk.begin() + 8192);
    Digests after(disk.size(), 4096);
    add_whole(after, disk);
    CHECK(before.differences(after) == Ranges{range(0, kMiB)});
  }
  SECTION("moved to another region") {
    std::swap_ranges(disk.begin() + 4096, disk.begin() + 8192, disk.begin() + 3 * kMiB);
    Digests after(disk.size(), 4096);
    add_whole(after, disk);
    CHECK(before.differences(after) == Ranges{range(0, kMiB), range(3 * kMiB, 4 * kMiB)});
  }
  SECTION("stored twice") {
    std::copy(disk.begin() + 4096, disk.begin() + 8192, disk.begin() + 12288);
    Digests after(disk.size(), 4096);
    add_whole(after, disk);
    CHECK(before.differences(after) == Ranges{range(0, kMiB)});
  }
}

TEST_CASE("zeros where there was data are found, and data where there were zeros", "[digests]") {
  const std::vector<std::byte> data(4096, std::byte{5});
  Digests something(3 * kMiB, 4096);
  something.add(GuestOffset(kMiB), data);
  const Digests nothing(3 * kMiB, 4096);
  CHECK(something.differences(nothing) == Ranges{range(kMiB, 2 * kMiB)});
  CHECK(nothing.differences(something) == Ranges{range(kMiB, 2 * kMiB)});
}

TEST_CASE("regions that differ side by side are one range", "[digests]") {
  const std::vector<std::byte> data(512, std::byte{5});
  Digests digests(8 * kMiB + 1, 512);
  for (const uint64_t region : {1, 2, 5, 7}) digests.add(GuestOffset(region * kMiB + 512), data);
  digests.add(GuestOffset(8 * kMiB), data);  // only its first byte is within the disk
  CHECK(Digests(8 * kMiB + 1, 512).differences(digests) ==
        Ranges{range(kMiB, 3 * kMiB), range(5 * kMiB, 6 * kMiB), range(7 * kMiB, 8 * kMiB + 1)});
}

TEST_CASE("data past the end does not count", "[digests]") {
  std::vector<std::byte> bytes(8192, std::byte{1});
  Digests first(5000, 4096);
  first.add(GuestOffset(0), bytes);
  bytes[5000] = std::byte{2};
  Digests second(5000, 4096);
  second.add(GuestOffset(0), bytes);
  second.add(GuestOffset(8192), bytes);
  CHECK(first.differences(second).empty());
  bytes[4999] = std::byte{2};
  Digests third(5000, 4096);
  third.add(GuestOffset(0), bytes);
  CHECK(first.differences(third) == Ranges{range(0, 5000)});
}

TEST_CASE("the table stays small however large the disk", "[digests]") {
  CHECK(Digests(0, 65536).differences(Digests(0, 65536)).empty());
  CHECK(Digests(uint64_t{256} << 30, 65536).region_size() == kMiB);
  CHECK(Digests(uint64_t{16} << 40, 65536).region_size() == 64 * kMiB);
  CHECK(Digests(uint64_t{16} << 40, 2 << 20).piece_size() == 65536);
  Digests largest(INT64_MAX, 512);
  CHECK(largest.region_size() == uint64_t{1} << 45);
  const std::vector<std::byte> data(512, std::byte{5});
  largest.add(GuestOffset(INT64_MAX / 512 * 512), data);
  CHECK(Digests(INT64_MAX, 512).differences(largest) ==
        Ranges{range(INT64_MAX / (uint64_t{1} << 45) << 45, INT64_MAX)});
}

TEST_CASE("the end of a disk may become known late", "[digests]") {
  const uint64_t seed = support::base_seed();
  INFO(fmt::format("VIRT_COMPACT_SEED={}", seed));
  const size_t size = 3 * kMiB + 5001;
  auto disk = test::lived_in_bytes(seed, size);
  disk.back() = std::byte{1};
  Digests streamed(Digests::kUnknown, 65536);
  CHECK(streamed.region_size() == 64 * kMiB);
  disk.resize(size / 65536 * 65536 + 65536);  // the rest of its last cluster
  add_whole(streamed, disk);
  streamed.end_at(size);
  disk.resize(size);
  Digests again = streamed.emptied();
  add_whole(again, disk);
  CHECK(streamed.differences(again).empty());
  disk.back() = std::byte{2};
  Digests other = streamed.emptied();
  add_whole(other, disk);
  CHECK(streamed.differences(other) == Ranges{range(0, size)});
}

TEST_CASE("the last region of a disk of unknown size has no limit", "[digests]") {
  const std::vector<std::byte> data(512, std::byte{5});
  Digests streamed(Digests::kUnknown, 512);
  for (const unsigned terabytes : {15u, 16u, 20u})
    streamed.add(GuestOffset(uint64_t{terabytes} << 40), data);
  const uint64_t size = uint64_t{30} << 40;
  streamed.end_at(size);
  const uint64_t first = uint64_t{15} << 40;
  const uint64_t last = (uint64_t{16} << 40) - 64 * kMiB;
  CHECK(streamed.differences(streamed.emptied()) ==
        Ranges{range(first, first + 64 * kMiB), range(last, size)});
}

TEST_CASE("zeros count if they hide data", "[digests]") {
  const uint64_t size = 3 * kMiB + 100;
  const std::vector<std::byte> zeros(kMiB);
  const Digests nothing(size, 4096, Digests::Zeros::kTold);
  Digests told = nothing.emptied();
  told.add_zeros(GuestOffset(0), 65536);
  told.add_zeros(GuestOffset(3 * kMiB), kMiB);
  Digests read = nothing.emptied();
  read.add(GuestOffset(0), std::span(zeros).first(65536));
  read.add(GuestOffset(3 * kMiB), zeros);
  CHECK(told.differences(read).empty());
  CHECK(told.differences(nothing) == Ranges{range(0, kMiB), range(3 * kMiB, size)});
  // With implied zeros, they do not count.
  Digests implied(size, 4096);
  implied.add_zeros(GuestOffset(0), 65536);
  CHECK(implied.differences(implied.emptied()).empty());
}

TEST_CASE("many threads add to one region", "[digests]") {
  const uint64_t seed = support::base_seed();
  INFO(fmt::format("VIRT_COMPACT_SEED={}", seed));
  constexpr size_t kThreads = 4;
  constexpr size_t kPiece = 512;
  const auto disk = test::lived_in_bytes(seed, 2 * kMiB);
  Digests whole(disk.size(), kPiece);
  add_whole(whole, disk);
  Digests shared(disk.size(), kPiece);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < kThreads; ++i)
    threads.emplace_back([&, i] {
      for (size_t at = i * kPiece; at < disk.size(); at += kThreads * kPiece)
        shared.add(GuestOffset(at), std::span(disk).subspan(at, kPiece));
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(whole.differences(shared).empty());
}
