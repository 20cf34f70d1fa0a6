// Where guest bytes come from.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "qcow2/read/extent.h"
#include "storage/offset.h"

namespace copy {

class Source {
 public:
  // More than any disk has.
  static constexpr uint64_t kUnknownSize = uint64_t{1} << 62;

  virtual ~Source() = default;

  virtual const std::string& name() const = 0;
  // Of the virtual disk, bytes; kUnknownSize until a stream has come to its end.
  virtual uint64_t size() const = 0;
  // The source's own, if it has clusters.
  virtual std::optional<uint64_t> cluster_size() const = 0;
  // Reads should begin and end at multiples of this: a power of two.
  virtual uint64_t alignment() const { return 1; }

  // Appends extents that cover [at, at + length) without gap or overlap, or a first part of it. One
  // thread at a time.
  virtual qcow2::Result<void> map(qcow2::GuestOffset at, uint64_t length,
                                  std::vector<qcow2::Extent>& out) = 0;

  // Fills `to`; for samples and the like, the pipeline has faster ways.  One thread at a time, and
  // not while the pipeline runs.
  virtual qcow2::Result<void> read(qcow2::GuestOffset at, std::span<std::byte> to) = 0;
};

}  // namespace copy
