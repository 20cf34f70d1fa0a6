#include "tests/support/random.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

namespace vc::support {

namespace {

uint64_t choose_seed() {
  const char* given = std::getenv("VIRT_COMPACT_SEED");
  // Few digits, because a user may have to type them.
  const uint64_t seed =
      given ? std::strtoull(given, nullptr, 0) : std::random_device{}() % 1'000'000'000;
  fmt::print("random seed: {} (VIRT_COMPACT_SEED={} repeats this run)\n", seed, seed);
  std::fflush(stdout);
  return seed;
}

}  // namespace

void Random::fill(std::span<std::byte> bytes) {
  for (size_t at = 0; at < bytes.size(); at += sizeof(uint64_t)) {
    const uint64_t value = next();
    std::memcpy(&bytes[at], &value, std::min(sizeof value, bytes.size() - at));
  }
}

uint64_t base_seed() {
  static const uint64_t seed = choose_seed();
  return seed;
}

uint64_t iterations(uint64_t otherwise) {
  if (const char* const given = std::getenv("VIRT_COMPACT_ITERATIONS"))
    return std::strtoull(given, nullptr, 10);
  const char* const most = std::getenv("VIRT_COMPACT_ITERATIONS_AT_MOST");
  return most ? std::min<uint64_t>(std::strtoull(most, nullptr, 10), otherwise) : otherwise;
}

bool more_iterations(uint64_t made, uint64_t wanted, bool seen) {
  constexpr uint64_t kPatience = 100;
  return made < wanted || (wanted > 0 && !seen && made < wanted + kPatience);
}

}  // namespace vc::support
