// The interface for byte I/O: implemented by files, memory, and tests.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"
#include "storage/offset.h"

namespace vc {

// All operations may be called from several threads at once.  The caller must order overlapping
// writes, and reads that overlap writes.
class Storage {
 public:
  // A range of the storage that either may hold data or reads as zeros.
  struct Run {
    uint64_t length;  // bytes, at least 1
    bool data;
  };

  Storage() = default;
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;
  virtual ~Storage() = default;

  // Returns the name for messages: for a file, its path as the user gave it.
  virtual const std::string& name() const = 0;

  // Reads from `at` into `to`.  Returns the bytes read; fewer than `to.size()` only at the end.
  virtual Result<size_t> read(HostOffset at, std::span<std::byte> to) const = 0;

  // Writes all of `from`.  A write past the end extends the storage.
  virtual Result<void> write(HostOffset at, std::span<const std::byte> from) = 0;

  // Writes all of `pieces`, one after the other.  May modify `pieces`.
  virtual Result<void> write_vector(HostOffset at, std::span<iovec> pieces);

  // Makes all earlier writes safe from a power loss.
  virtual Result<void> flush() = 0;

  // Returns or sets the size in bytes. resize() of a block device does nothing, and is an error
  // only if the device is too small.
  virtual Result<uint64_t> size() const = 0;
  virtual Result<void> resize(uint64_t size) = 0;

  // Makes the range read as zeros; may deallocate it.  Does not extend the storage.
  virtual Result<void> write_zeroes(HostOffset at, uint64_t length);

  // Discards the range: its content becomes undefined; the storage may deallocate it.
  virtual void discard(HostOffset /*at*/, uint64_t /*length*/) {}

  // Returns the run at `at`, at most `limit` bytes.  `limit` must be positive and `at` before the
  // end.  Storage that does not know returns data.
  virtual Result<Run> run_at(HostOffset at, uint64_t limit) const = 0;
};

// Reads exactly `to.size()` bytes.  The end of the storage before that is an error that names the
// offset.
Result<void> read_fully(const Storage& storage, HostOffset at, std::span<std::byte> to);

}  // namespace vc
