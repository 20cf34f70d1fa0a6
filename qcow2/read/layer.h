// One image of a backing chain, seen as a disk with holes in it.
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

namespace qcow2 {

class Layer {
 public:
  // How compressed clusters of this layer are made.
  struct Compression {
    CompressionType type;
    uint64_t cluster_size;
  };

  virtual ~Layer() = default;

  virtual const std::string& name() const = 0;
  // "qcow2" or "raw".
  virtual const char* format() const = 0;
  // Bytes.
  virtual uint64_t size() const = 0;
  // Nothing for a format without compressed clusters.
  virtual std::optional<Compression> compression() const = 0;

  // What this layer alone says of `at`: one extent that begins there, of at most `limit` bytes
  // (limit >= 1, at + limit <= size ()).  kUnallocated means: ask the layer behind.  `depth` is 0.
  // The extent may be shorter than what `join` would make of it and its followers.
  virtual Result<Extent> map(GuestOffset at, uint64_t limit) const = 0;

  // Reads [at, at + to.size ()) of a kData or kCompressed extent that `map` gave and that holds it.
  virtual Result<void> read(const Extent& extent, GuestOffset at,
                            std::span<std::byte> to) const = 0;

  // Where the bytes of kData extents lie, at their `host`, if holes there are not told by `map`.
  virtual const Storage* cluster_storage() const { return nullptr; }

  // The bytes of a kCompressed extent as they stand in the file; fewer at the end of the file.
  virtual Result<size_t> read_stream(const Extent& extent, std::span<std::byte> to) const = 0;
};

}  // namespace qcow2
