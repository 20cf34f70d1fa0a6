// The destination of a copy: its location and how it is completed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "copy/pipeline/sink.h"
#include "storage/descriptor.h"
#include "storage/file_size.h"

namespace vc::copy {

class Qcow2Sink;

class Destination {
 public:
  virtual ~Destination() = default;

  virtual Sink& sink() = 0;
  // Returns the sink of an image that can be read while it is written. nullptr: there is none.
  virtual Qcow2Sink* image_sink() { return nullptr; }

  // Sets the size of the disk, bytes. Called at the end of a source of unknown size.
  virtual Result<void> set_size(uint64_t size) = 0;

  // Writes the remaining data and flushes everything to stable storage. All chunks must be written.
  virtual Result<void> write_out() = 0;

  // Returns a path to read the result, which has no name yet. Valid between write_out() and
  // complete().
  virtual std::optional<std::string> path_to_read() const { return std::nullopt; }

  // Gives the result its name.
  virtual Result<void> complete() = 0;

  // Returns the file itself, independent of its name. Empty if it is not a new file.
  virtual Result<Descriptor> share() const { return Descriptor(); }

  // Returns nullopt if it is not a file.
  virtual Result<std::optional<FileSize>> measure() = 0;
};

}  // namespace vc::copy
