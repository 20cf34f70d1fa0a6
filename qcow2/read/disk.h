// A virtual disk to read: an image (or one of its snapshots) and the backing chain behind it.
//
// All member functions may be called from any number of threads at once.
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

namespace qcow2 {

class Disk {
 public:
  // `layers[0]` is the top, and the last has no backing.  The disk is as large as its top.
  explicit Disk(std::vector<std::shared_ptr<Layer>> layers);

  // Bytes.
  uint64_t size() const { return layers_.front()->size(); }
  const std::vector<std::shared_ptr<Layer>>& layers() const { return layers_; }

  // Appends to `out` the extents that cover [at, at + length) without gap or overlap, joined as far
  // as `join` goes; stops early once `max_extents` (at least 1) are full, but always covers `at`.
  // The range must lie within the disk, length at least 1.
  Result<void> map(GuestOffset at, uint64_t length, std::vector<Extent>& out,
                   size_t max_extents = SIZE_MAX) const;

  // Fills `to` with the bytes from `at` on.  The range must lie within the disk.
  Result<void> read(GuestOffset at, std::span<std::byte> to) const;

  // Reads (a part of) one extent that `map` gave: [at, at + to.size ()) must lie within it.
  Result<void> read_extent(const Extent& extent, GuestOffset at, std::span<std::byte> to) const;

  // The raw stream of a kCompressed extent, `extent.compressed_length` bytes or, at the end of the
  // file, fewer.
  Result<size_t> read_stream(const Extent& extent, std::span<std::byte> to) const;

 private:
  std::vector<std::shared_ptr<Layer>> layers_;
};

}  // namespace qcow2
