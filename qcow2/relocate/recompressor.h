// Decides how a cluster is stored in a compressed image.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "qcow2/format/codec.h"
#include "qcow2/read/image.h"
#include "qcow2/relocate/pointer_window.h"
#include "storage/offset.h"

namespace vc::qcow2 {

// A cluster, or the stream of a compressed one, with all pointers to it.
struct StoredCluster {
  enum class Fate {
    kStays,   // where it is
    kPlain,   // as it is, in another place
    kStream,  // as `stream`
    kZero,    // without data
  };

  HostOffset at;
  uint64_t length;  // bytes
  bool compressed;
  std::span<const ClusterPointer> pointers;
  uint64_t times;  // references
  Fate fate = Fate::kStays;
  uint64_t bitmap = 0;  // of the extended L2 entries of a plain cluster, if they are the same
  std::vector<std::byte> stream = {};
};

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
