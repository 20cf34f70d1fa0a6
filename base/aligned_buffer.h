// A memory buffer aligned to 4096 bytes, as direct I/O requires.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <span>

#include "base/rounding.h"

namespace vc {

class AlignedBuffer {
 public:
  static constexpr size_t kAlignment = 4096;

  AlignedBuffer() = default;
  // Allocates `size` bytes.  Does not initialize them.
  explicit AlignedBuffer(size_t size)
      : bytes_(static_cast<std::byte*>(std::aligned_alloc(kAlignment, round_up(size, kAlignment)))),
        size_(size) {
    if (!bytes_ && size > 0) throw std::bad_alloc();
  }

  std::byte* data() { return bytes_.get(); }
  const std::byte* data() const { return bytes_.get(); }
  size_t size() const { return size_; }
  std::span<std::byte> span() { return {data(), size_}; }
  std::span<const std::byte> span() const { return {data(), size_}; }

 private:
  struct Free {
    void operator()(std::byte* bytes) const { std::free(bytes); }
  };
  std::unique_ptr<std::byte, Free> bytes_;
  size_t size_ = 0;
};

}  // namespace vc
