#include "qcow2/format/incompressible_probe.h"

#include <zstd.h>

#include <array>
#include <cstdint>
#include <new>

namespace vc::qcow2 {

namespace {

// A small sample of bytes from the whole cluster.
constexpr size_t kSample = 4096;
constexpr size_t kRun = 64;
// Chi-squared of 256 equally frequent bytes is 255 on average, and above 350 once in 25,000 times.
// The output of compressors, which is also incompressible, has slightly larger values.
constexpr uint64_t kMaxChiSquared = 512;

bool bytes_are_even(std::span<const std::byte> cluster) {
  std::array<uint32_t, 256> counts{};
  const size_t stride = cluster.size() / (kSample / kRun);
  for (size_t run = 0; run < kSample / kRun; ++run)
    for (const std::byte it : cluster.subspan(run * stride, kRun))
      ++counts[std::to_integer<size_t>(it)];
  uint64_t squares = 0;
  for (const uint64_t count : counts) squares += count * count;
  return squares * counts.size() / kSample - kSample <= kMaxChiSquared;
}

}  // namespace

struct IncompressibleProbe::State {
  State() : zstd(ZSTD_createCCtx()) {
    if (!zstd) throw std::bad_alloc();
    ZSTD_CCtx_setParameter(zstd, ZSTD_c_compressionLevel, 1);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { ZSTD_freeCCtx(zstd); }

  ZSTD_CCtx* zstd;
};

IncompressibleProbe::IncompressibleProbe() : state_(std::make_unique<State>()) {}
IncompressibleProbe::~IncompressibleProbe() = default;
IncompressibleProbe::IncompressibleProbe(IncompressibleProbe&&) noexcept = default;
IncompressibleProbe& IncompressibleProbe::operator=(IncompressibleProbe&&) noexcept = default;

// Evenly distributed bytes may still repeat. zstd's first level skips incompressible data forty
// times as fast as deflate, and gives up if it gains less than a sixty-fourth.
bool IncompressibleProbe::is_incompressible(std::span<const std::byte> cluster,
                                            std::span<std::byte> scratch) {
  if (cluster.size() < kSample || !bytes_are_even(cluster)) return false;
  return ZSTD_isError(ZSTD_compress2(state_->zstd, scratch.data(), scratch.size(), cluster.data(),
                                     cluster.size())) != 0;
}

}  // namespace vc::qcow2
