// A readable virtual disk: an image (or one of its snapshots) and its backing chain.
//
// All member functions are thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "qcow2/format/codec.h"
#include "qcow2/read/extent.h"
#include "qcow2/read/layer.h"
#include "storage/offset.h"

namespace vc::qcow2 {

class Disk {
 public:
  // `layers[0]` is the top; the last layer has no backing.  The disk has the size of the top.
  explicit Disk(std::vector<std::shared_ptr<Layer>> layers);

  // Returns the size in bytes.
  uint64_t size() const { return layers_.front()->size(); }
  const std::vector<std::shared_ptr<Layer>>& layers() const { return layers_; }

  // Appends to `out` the extents that cover [at, at + length), without gaps or overlaps, joined
  // where `join` allows.  Stops after `max_extents` extents (at least 1), but always covers `at`.
  // The range must be within the disk, and `length` at least 1.
  Result<void> map(GuestOffset at, uint64_t length, std::vector<Extent>& out,
                   size_t max_extents = SIZE_MAX) const;

  // Reads the bytes from `at` into `to`.  The range must be within the disk.
  Result<void> read(GuestOffset at, std::span<std::byte> to) const;

  // Reads (a part of) an extent that `map` returned: [at, at + to.size ()) must be within it.
  Result<void> read_extent(const Extent& extent, GuestOffset at, std::span<std::byte> to) const;

  // Reads the compressed stream of a kCompressed extent.  Returns `extent.compressed_length` bytes,
  // or fewer at the end of the file.
  Result<size_t> read_stream(const Extent& extent, std::span<std::byte> to) const;

 private:
  std::vector<std::shared_ptr<Layer>> layers_;
};

}  // namespace vc::qcow2
