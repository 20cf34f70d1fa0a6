// The one door to bytes: a file, memory, and whatever a test needs to break.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"
#include "storage/offset.h"

namespace qcow2 {

// All operations may be called from several threads at once.  Two writes that overlap, or a write
// and a read that do, have no order unless the caller gives them one.
class Storage {
 public:
  // A stretch of the storage that may hold data, or that surely reads as zeros.
  struct Run {
    uint64_t length;  // bytes, at least 1
    bool data;
  };

  Storage() = default;
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;
  virtual ~Storage() = default;

  // What to call it in a message: for a file, its path as the user gave it.
  virtual const std::string& name() const = 0;

  // Fills `to` from `at` on.  Returns the bytes read, fewer than asked for only at the end.
  virtual Result<size_t> read(HostOffset at, std::span<std::byte> to) const = 0;

  // Writes all of `from`; the storage grows when that goes past its end.
  virtual Result<void> write(HostOffset at, std::span<const std::byte> from) = 0;

  // Writes all of `pieces`, one behind the other.  They may be changed on the way.
  virtual Result<void> write_vector(HostOffset at, std::span<iovec> pieces);

  // When it returns, all that was written before is safe from a loss of power.
  virtual Result<void> flush() = 0;

  // In bytes.  A block device keeps its size: it is an error only if that is too small.
  virtual Result<uint64_t> size() const = 0;
  virtual Result<void> resize(uint64_t size) = 0;

  // The range reads as zeros from now on; what the storage has of it may be given back.  It does
  // not grow by this.
  virtual Result<void> write_zeroes(HostOffset at, uint64_t length);

  // Nobody cares for these bytes any more: they may read as anything.  Gives back what it can.
  virtual void discard(HostOffset /*at*/, uint64_t /*length*/) {}

  // What lies at `at`, for at most `limit` bytes (limit > 0, `at` before the end).  Storage that
  // cannot tell says data.
  virtual Result<Run> run_at(HostOffset at, uint64_t limit) const = 0;
};

// Reads exactly `to.size()` bytes; a storage that ends before is an error that says where.
Result<void> read_fully(const Storage& storage, HostOffset at, std::span<std::byte> to);

}  // namespace qcow2
