// The map of a disk, as `qemu-img map` prints it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "copy/source/source.h"
#include "qcow2/read/extent.h"

namespace vc::inspect {

struct MapEntry {
  uint64_t start = 0;   // bytes of the disk
  uint64_t length = 0;  // bytes
  uint32_t depth = 0;   // of the image that has it; 0: top image
  bool present = false;
  bool zero = false;
  bool data = false;
  bool compressed = false;
  std::optional<uint64_t> offset = {};  // offset in the file of that image, or in its data file
  bool encrypted = false;               // the bytes at `offset` are not those of the disk
  // Size of the streams of compressed clusters, each up to the end of its last sector.
  uint64_t compressed_bytes = 0;
};

class DiskMap {
 public:
  // Callbacks. Both can stop the walk with an error. `entry`: equal neighbours are merged.
  using OnEntry = std::function<Result<void>(const MapEntry& entry)>;
  // Called for each extent of the engine: one compressed cluster at a time.
  using OnExtent = std::function<Result<void>(const qcow2::Extent& extent)>;

  // `source` must outlive the map and must not be a stream.
  explicit DiskMap(copy::Source& source) : source_(source) {}

  // Visits [start, end) of the disk in pieces, so memory does not grow with the disk. If metadata
  // was preallocated, holes of the file are looked up, as in QEMU: data in a hole is also `zero`.
  Result<void> walk(uint64_t start, uint64_t end, const OnExtent& on_extent,
                    const OnEntry& on_entry);

  // Returns the file that the offsets of an entry refer to: the name of the image or of its data
  // file.
  const std::string& file_of(uint32_t depth) const;

 private:
  Result<void> add(const qcow2::Extent& extent, const OnEntry& on_entry);
  Result<void> put(const MapEntry& entry, const OnEntry& on_entry);
  Result<bool> hollow(uint32_t depth);

  copy::Source& source_;
  std::vector<std::optional<bool>> hollow_;  // by depth: whether the file may have such holes
  std::optional<MapEntry> pending_;
};

}  // namespace vc::inspect
