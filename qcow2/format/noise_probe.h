// Tells early that a cluster will not compress.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

namespace qcow2 {

// One thread at a time; reuse it.
class NoiseProbe {
 public:
  NoiseProbe();
  ~NoiseProbe();
  NoiseProbe(NoiseProbe&&) noexcept;
  NoiseProbe& operator=(NoiseProbe&&) noexcept;

  // Whether trying to compress `cluster` is a waste of time.  Depends on its bytes alone.
  // Overwrites `scratch`, which is as long as the longest stream that would be of use.
  bool is_noise(std::span<const std::byte> cluster, std::span<std::byte> scratch);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace qcow2
