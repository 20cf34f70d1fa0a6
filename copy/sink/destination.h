// What becomes of a copy when it is done, and where it is.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "copy/pipeline/sink.h"
#include "storage/descriptor.h"

namespace copy {

// What a file takes: its length, and the blocks that it has on the disk, both in bytes.
struct FileSize {
  uint64_t length = 0;
  uint64_t blocks = 0;
};

class Destination {
 public:
  virtual ~Destination() = default;

  virtual Sink& sink() = 0;

  // The size of a source that did not say it beforehand, when it has come to its end; bytes.
  virtual qcow2::Result<void> set_size(uint64_t size) = 0;

  // All chunks are written: what is left is written, and all of it is on the disk.
  virtual qcow2::Result<void> write_out() = 0;

  // Between the two: a path by which it can be read, though it has no name yet.
  virtual std::optional<std::string> path_to_read() const { return std::nullopt; }

  // It gets its name.
  virtual qcow2::Result<void> complete() = 0;

  // The file itself, whatever becomes of its name; nothing where it is no fresh file.
  virtual qcow2::Result<qcow2::Descriptor> share() const { return qcow2::Descriptor(); }

  // Nothing where it is no file.
  virtual qcow2::Result<std::optional<FileSize>> measure() = 0;
};

}  // namespace copy
