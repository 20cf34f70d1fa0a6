// What the layer below serves, as the engine's storage.
#pragma once

#include <nbdkit-filter.h>

#include <cstdint>
#include <string>

#include "storage/storage.h"

namespace filters {

// nbdkit gives a filter one `next` for each connection, and it must be used by the requests of that
// connection alone: nbdkit's locks for plugins that want their requests one by one go by
// connection.  An image, on the other hand, is best opened once, with one table cache for all.  So
// a NextStorage holds no `next`.  Each callback says through which one this thread reads for now:
//
//     NextStorage::Through through(next);
//     disk.read(…);
//
// The engine reads on the thread that calls it, so that is the `next` of the very request.
//
// Thread-safe, and read-only: whatever would change something is an error.
class NextStorage final : public qcow2::Storage {
 public:
  // What the layer says of itself; bytes.
  struct Shape {
    uint64_t size = 0;
    uint32_t minimum = 1;  // reads must be multiples of it, a power of two
    uint32_t maximum = 0;  // and no longer than this; 0: it does not say
  };

  // All reads of this thread go through `next`, while it lives.  Objects may be nested.
  class Through {
   public:
    explicit Through(nbdkit_next* next);
    Through(const Through&) = delete;
    Through& operator=(const Through&) = delete;
    ~Through();

   private:
    nbdkit_next* const outer_;
  };

  // `name`: for messages.  Every `next` that is read through has this shape.
  NextStorage(std::string name, const Shape& shape);

  const std::string& name() const override { return name_; }
  qcow2::Result<size_t> read(qcow2::HostOffset at, std::span<std::byte> to) const override;
  qcow2::Result<void> write(qcow2::HostOffset at, std::span<const std::byte> from) override;
  qcow2::Result<void> flush() override;
  qcow2::Result<uint64_t> size() const override { return shape_.size; }
  qcow2::Result<void> resize(uint64_t size) override;
  // What the layer below says of its extents; all is data if it does not say, or at an odd offset
  // of a layer that wants its requests aligned.
  qcow2::Result<Run> run_at(qcow2::HostOffset at, uint64_t limit) const override;

 private:
  qcow2::Result<void> read_piece(uint64_t at, std::span<std::byte> to) const;

  const std::string name_;
  const Shape shape_;
  const uint64_t largest_;  // bytes of one read, a multiple of shape_.minimum
};

}  // namespace filters
