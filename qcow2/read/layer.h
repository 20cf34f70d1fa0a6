// One image of a backing chain, as a disk with holes.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/result.h"
#include "qcow2/format/codec.h"
#include "qcow2/format/geometry.h"
#include "qcow2/read/extent.h"
#include "storage/offset.h"
#include "storage/storage.h"

namespace vc::qcow2 {

class Image;

class Layer {
 public:
  // The compression of this layer's clusters.
  struct StreamFormat {
    CompressionType type;
    uint64_t cluster_size;
  };

  virtual ~Layer() = default;

  virtual const std::string& name() const = 0;
  // Returns "qcow2" or "raw".
  virtual const char* format() const = 0;
  // Returns the size in bytes.
  virtual uint64_t size() const = 0;
  // Returns nullopt for a format without compressed clusters.
  virtual std::optional<StreamFormat> compression() const = 0;

  // Returns this layer's extent at `at`, of at most `limit` bytes (limit >= 1, at + limit <= size
  // ()). kUnallocated means that the next lower layer decides.  `depth` is 0.  The extent may be
  // shorter than `join` would make it.
  virtual Result<Extent> map(GuestOffset at, uint64_t limit) const = 0;

  // Reads [at, at + to.size ()) of a kData or kCompressed extent of `map`, which must contain the
  // range.
  virtual Result<void> read(const Extent& extent, GuestOffset at,
                            std::span<std::byte> to) const = 0;

  // Returns the storage of kData extents, at their `host`, if `map` does not report holes in it.
  virtual const Storage* cluster_storage() const { return nullptr; }

  // Returns the image of a QCOW2 layer. nullptr for other formats.
  virtual const Image* qcow2_image() const { return nullptr; }

  // Reads the stream of a kCompressed extent; returns fewer bytes at the end of the file.
  virtual Result<size_t> read_stream(const Extent& extent, std::span<std::byte> to) const = 0;
};

}  // namespace vc::qcow2
