// Detects quickly that a cluster is incompressible.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

namespace vc::qcow2 {

// Must be used by one thread at a time.  Reuse it.
class IncompressibleProbe {
 public:
  IncompressibleProbe();
  ~IncompressibleProbe();
  IncompressibleProbe(IncompressibleProbe&&) noexcept;
  IncompressibleProbe& operator=(IncompressibleProbe&&) noexcept;

  // Returns whether compressing `cluster` is not worthwhile.  Depends on the content only.
  // Overwrites `scratch`, whose size must be that of the longest useful stream.
  bool is_incompressible(std::span<const std::byte> cluster, std::span<std::byte> scratch);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace vc::qcow2
