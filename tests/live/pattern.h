// The blocks that the test's guest writes: all operations follow from their number, so that the
// test knows what each block must contain. Included by the guest's init and by the test.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace vc::live_test {

inline constexpr uint32_t kBlockSize = 4096;        // bytes
inline constexpr uint32_t kBlocks = 4096;           // of the part of the disk that changes: 16 MiB
inline constexpr uint32_t kMostAtOnce = 32;         // blocks of an operation
inline constexpr uint64_t kPatternStart = 1 << 20;  // its offset on the disk, bytes
// A part that never changes, and a part with garbage that a trim discards.
inline constexpr uint64_t kConstantStart = 32 << 20;
inline constexpr uint64_t kConstantBytes = 16 << 20;
inline constexpr uint64_t kGarbageStart = 64 << 20;
inline constexpr uint64_t kGarbageBytes = 32 << 20;
inline constexpr uint64_t kDiskBytes = 128 << 20;

inline uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

enum class Kind { kWrite, kRead, kFlush, kZero, kDiscard };

struct Operation {
  Kind kind;
  uint32_t first;  // block
  uint32_t count;  // blocks; 0: a flush
};

inline Operation operation(uint32_t number) {
  const uint64_t chance = mix(number) % 100;
  const uint64_t more = mix(mix(number));
  const uint32_t count = 1 + static_cast<uint32_t>((more >> 40) % kMostAtOnce);
  const uint32_t first = static_cast<uint32_t>((more & 0xffffffff) % (kBlocks - count));
  if (chance < 60) return {Kind::kWrite, first, count};
  if (chance < 80) return {Kind::kRead, first, count};
  if (chance < 90) return {Kind::kFlush, 0, 0};
  if (chance < 96) return {Kind::kZero, first, count};
  return {Kind::kDiscard, first, count};
}

// What a block contains after an operation.
struct State {
  Kind kind = Kind::kZero;  // kDiscard: anything
  uint32_t number = 0;      // of the operation, for kWrite
};

inline void fill(unsigned char* block, uint32_t number, uint32_t index) {
  uint64_t words[kBlockSize / 8];
  uint64_t seed = mix((uint64_t{number} << 32) | index);
  words[0] = number;
  words[1] = index;
  for (size_t i = 2; i < kBlockSize / 8; ++i) words[i] = seed = mix(seed);
  std::memcpy(block, words, kBlockSize);
}

inline bool matches(const unsigned char* block, const State& state, uint32_t index) {
  unsigned char expected[kBlockSize] = {};
  if (state.kind == Kind::kDiscard) return true;
  if (state.kind == Kind::kWrite) fill(expected, state.number, index);
  return std::memcmp(block, expected, kBlockSize) == 0;
}

}  // namespace vc::live_test
