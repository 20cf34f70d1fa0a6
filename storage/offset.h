// Offsets and indices that cannot be mixed up.
//
// All offsets are in bytes.  A guest offset counts from the start of the virtual disk, a host
// offset from the start of the file (or data file) that holds the bytes.  The difference of two
// offsets of one kind, and every length, is a plain uint64_t of bytes.
#pragma once

#include <compare>
#include <cstdint>

namespace vc {

template <typename Tag>
class Quantity {
 public:
  constexpr Quantity() = default;
  constexpr explicit Quantity(uint64_t value) : value_(value) {}

  constexpr uint64_t value() const { return value_; }

  friend constexpr auto operator<=>(Quantity, Quantity) = default;

  friend constexpr Quantity operator+(Quantity a, uint64_t n) { return Quantity(a.value_ + n); }
  friend constexpr Quantity operator-(Quantity a, uint64_t n) { return Quantity(a.value_ - n); }
  friend constexpr uint64_t operator-(Quantity a, Quantity b) { return a.value_ - b.value_; }
  constexpr Quantity& operator+=(uint64_t n) {
    value_ += n;
    return *this;
  }
  constexpr Quantity& operator++() {
    ++value_;
    return *this;
  }

 private:
  uint64_t value_ = 0;
};

// Bytes from the start of the virtual disk.
using GuestOffset = Quantity<struct GuestOffsetTag>;
// Bytes from the start of the image file, or of its external data file.
using HostOffset = Quantity<struct HostOffsetTag>;
// The number of a cluster of the virtual disk: guest offset / cluster size.
using ClusterIndex = Quantity<struct ClusterIndexTag>;
// The number of a cluster of the image file: host offset / cluster size.
using HostCluster = Quantity<struct HostClusterTag>;

}  // namespace vc
