// A source whose map is set by the test. Its bytes depend only on their offset.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "copy/source/source.h"
#include "tests/support/random.h"

namespace vc::test {

// A range of a disk with one state.
struct Stretch {
  uint64_t length;  // bytes
  qcow2::ExtentKind kind;
};

class PatternSource final : public copy::Source {
 public:
  explicit PatternSource(const std::vector<Stretch>& stretches, uint64_t alignment = 1,
                         size_t extents_at_once = 1000)
      : alignment_(alignment), extents_at_once_(extents_at_once) {
    for (const Stretch& stretch : stretches) {
      qcow2::Extent extent;
      extent.guest = GuestOffset(size_);
      extent.length = stretch.length;
      extent.kind = stretch.kind;
      extent.host = HostOffset(size_);
      extents_.push_back(extent);
      size_ += stretch.length;
    }
  }

  const std::string& name() const override { return name_; }
  uint64_t size() const override { return size_; }
  std::optional<uint64_t> cluster_size() const override { return std::nullopt; }
  uint64_t alignment() const override { return alignment_; }

  Result<void> map(GuestOffset at, uint64_t length, std::vector<qcow2::Extent>& out) override {
    ++maps;
    const GuestOffset end = at + length;
    size_t given = 0;
    for (const qcow2::Extent& extent : extents_) {
      if (extent.end() <= at || extent.guest >= end) continue;
      if (given++ == extents_at_once_) break;
      qcow2::Extent part = extent;
      part.guest = std::max(extent.guest, at);
      part.length = std::min(extent.end(), end) - part.guest;
      if (part.kind == qcow2::ExtentKind::kData) part.host += part.guest - extent.guest;
      out.push_back(part);
    }
    return {};
  }

  Result<void> read(GuestOffset at, std::span<std::byte> to) override {
    for (size_t i = 0; i < to.size(); ++i) to[i] = byte_at(at.value() + i);
    return {};
  }

  // Returns the content of the disk: zeros outside of data, and never zero inside.
  std::byte byte_at(uint64_t at) const {
    if (stretch_at(at).reads_as_zero()) return std::byte{0};
    return static_cast<std::byte>(1 + (at * 0x9e3779b97f4a7c15 >> 40) % 255);
  }

  const qcow2::Extent& stretch_at(uint64_t at) const {
    const auto next = std::upper_bound(
        extents_.begin(), extents_.end(), at,
        [](uint64_t value, const qcow2::Extent& extent) { return value < extent.guest.value(); });
    return *std::prev(next);
  }

  size_t maps = 0;  // number of calls to map ()

 private:
  std::string name_ = "pattern";
  std::vector<qcow2::Extent> extents_;
  uint64_t size_ = 0;
  uint64_t alignment_;
  size_t extents_at_once_;
};

// Returns ranges in random order and of random lengths: up to `most` times `unit`.
inline std::vector<Stretch> random_stretches(support::Random& random, uint64_t unit, uint64_t most,
                                             size_t count) {
  static const std::vector<qcow2::ExtentKind> kinds{
      qcow2::ExtentKind::kData, qcow2::ExtentKind::kZero, qcow2::ExtentKind::kUnallocated};
  std::vector<Stretch> stretches;
  for (size_t i = 0; i < count; ++i)
    stretches.push_back({unit * random.between(1, most), random.pick(kinds)});
  return stretches;
}

}  // namespace vc::test
