// Decides how a cluster is stored in a compressed image.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/result.h"
#include "qcow2/format/codec.h"
#include "qcow2/read/image.h"
#include "qcow2/relocate/stored_cluster.h"

namespace vc::qcow2 {

// Must be used by one thread at a time.
class Recompressor {
 public:
  // `how` must have the compression type of the image.  `image` must outlive the object.
  static Result<Recompressor> create(const Image& image, const Compression& how);

  // Reads a cluster, and sets its fate, its bitmap and its stream: compressed if that is smaller,
  // without data if it reads as zeros.  An existing stream is only cut after its data; one that
  // cannot be decoded stays.
  Result<void> decide(StoredCluster& cluster);

 private:
  Recompressor(const Image& image, Encoder encoder);

  Result<void> decide_stream(StoredCluster& cluster);
  Result<void> decide_plain(StoredCluster& cluster);
  Result<std::optional<uint64_t>> read_bitmap(const StoredCluster& cluster) const;
  Result<bool> clear_zeros(StoredCluster& cluster);

  const Image& image_;
  Encoder encoder_;
  Decoder decoder_;
  std::vector<std::byte> cluster_;
  std::vector<std::byte> stream_;
};

}  // namespace vc::qcow2
