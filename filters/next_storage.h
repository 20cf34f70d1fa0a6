// The disk of the layer below, as the engine's storage.
#pragma once

#include <nbdkit-filter.h>

#include <cstdint>
#include <string>

#include "storage/storage.h"

namespace vc::filters {

// nbdkit gives a filter one `next` per connection, and only requests of that connection may use it:
// nbdkit serializes requests per connection for plugins that need it. An image is best opened once,
// with one table cache for all. So a NextStorage holds no `next`. Each callback sets the `next` for
// the reads of its thread:
//
//     NextStorage::Through through(next);
//     disk.read(…);
//
// The engine reads on the calling thread, so each request uses its own `next`. Thread-safe and
// read-only: writes are errors.
class NextStorage final : public Storage {
 public:
  // Size and block sizes of the layer below, bytes.
  struct Shape {
    uint64_t size = 0;
    uint32_t minimum = 1;  // reads must be multiples of it, a power of two
    uint32_t maximum = 0;  // of one read; 0: not reported
  };

  // Routes all reads of this thread through `next` while the object lives. Objects may be nested.
  class Through {
   public:
    explicit Through(nbdkit_next* next);
    Through(const Through&) = delete;
    Through& operator=(const Through&) = delete;
    ~Through();

   private:
    nbdkit_next* const outer_;
  };

  // `name` is for messages. Every `next` in use must have this shape.
  NextStorage(std::string name, const Shape& shape);

  const std::string& name() const override { return name_; }
  Result<size_t> read(HostOffset at, std::span<std::byte> to) const override;
  Result<void> write(HostOffset at, std::span<const std::byte> from) override;
  Result<void> flush() override;
  Result<uint64_t> size() const override { return shape_.size; }
  Result<void> resize(uint64_t size) override;
  // Returns the extents of the layer below. Reports data if the layer reports no extents, or at an
  // unaligned offset of a layer that needs aligned requests.
  Result<Run> run_at(HostOffset at, uint64_t limit) const override;

 private:
  Result<void> read_piece(uint64_t at, std::span<std::byte> to) const;

  const std::string name_;
  const Shape shape_;
  const uint64_t largest_;  // bytes per read, a multiple of shape_.minimum
};

}  // namespace vc::filters
