// The persistent bitmaps of a new image: the data of each, its table, and at the end the directory.
#pragma once

#include <cstdint>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/result.h"
#include "qcow2/build/cluster_layout.h"
#include "qcow2/format/build_options.h"
#include "qcow2/format/geometry.h"
#include "qcow2/format/header.h"
#include "storage/storage.h"

namespace vc::qcow2 {

// Memory: a cluster of bits, the table of one bitmap, and the directory.
class BitmapLayout {
 public:
  // `out` and `clusters` must outlive the object.
  BitmapLayout(Storage& out, const Geometry& geometry, ClusterLayout& clusters)
      : out_(out), geometry_(geometry), clusters_(clusters), bits_(geometry.cluster_size()) {}

  // Returns the most clusters that the bitmaps of an image take, with the refcount blocks of long
  // tables.
  static uint64_t most_clusters(const BuildOptions& options);

  // Writes the data and the table of a bitmap of a disk of `disk_size` bytes.
  Result<void> write(const NewBitmap& bitmap, uint64_t disk_size);
  // Writes the directory.  Returns the extension for the header.
  Result<HeaderExtension> write_directory();

 private:
  Result<uint64_t> write_piece(const NewBitmap& bitmap, uint64_t at, uint64_t count);
  Result<HostOffset> write_table(const std::vector<std::byte>& bytes);

  Storage& out_;
  const Geometry geometry_;
  ClusterLayout& clusters_;
  AlignedBuffer bits_;
  std::vector<std::byte> directory_;
  uint32_t count_ = 0;
};

}  // namespace vc::qcow2
