// A source of guest data.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "qcow2/read/extent.h"
#include "storage/offset.h"

namespace vc::copy {

class Source {
 public:
  // Larger than any disk.
  static constexpr uint64_t kUnknownSize = uint64_t{1} << 62;

  virtual ~Source() = default;

  virtual const std::string& name() const = 0;
  // Size of the virtual disk, bytes. kUnknownSize for a stream until its end.
  virtual uint64_t size() const = 0;
  // Cluster size of the source, bytes. nullopt if it has no clusters.
  virtual std::optional<uint64_t> cluster_size() const = 0;
  // Reads should begin and end at multiples of this: bytes, a power of two.
  virtual uint64_t alignment() const { return 1; }

  // Appends extents that cover [at, at + length), or the first part of it, without gap or overlap.
  // Not thread-safe.
  virtual Result<void> map(GuestOffset at, uint64_t length, std::vector<qcow2::Extent>& out) = 0;

  // Fills `to`. For samples and similar reads; the pipeline has faster ways. Not thread-safe, and
  // must not run concurrently with the pipeline.
  virtual Result<void> read(GuestOffset at, std::span<std::byte> to) = 0;
};

}  // namespace vc::copy
