// A disk's map in the terms of `qemu-img map`.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "copy/source/any_source.h"
#include "qcow2/read/extent.h"

namespace copy {

struct MapEntry {
  uint64_t start = 0;   // bytes of the disk
  uint64_t length = 0;  // bytes
  uint32_t depth = 0;   // of the image that has it; 0 is the top
  bool present = false;
  bool zero = false;
  bool data = false;
  bool compressed = false;
  std::optional<uint64_t> offset = {};  // in the file of that image, or in its data file
  // What the streams of compressed clusters take, each to the end of its last sector.
  uint64_t compressed_bytes = 0;
};

class DiskMap {
 public:
  // Both may refuse to go on, with an error.  `entry`: of neighbours that tell one story, once.
  using OnEntry = std::function<qcow2::Result<void>(const MapEntry& entry)>;
  // As the engine has them: a compressed cluster at a time.
  using OnExtent = std::function<qcow2::Result<void>(const qcow2::Extent& extent)>;

  // `source`, no stream, outlives the map.
  explicit DiskMap(const AnySource& source) : source_(source) {}

  // Goes through [start, end) of the disk, in pieces: memory does not grow with the disk.  Where
  // the metadata was preallocated, holes of the file are looked for, as in QEMU: data that lies in
  // one is `zero`, too.
  qcow2::Result<void> walk(uint64_t start, uint64_t end, const OnExtent& on_extent,
                           const OnEntry& on_entry);

  // The file that the offsets of an entry are in: the image's name, or that of its data file.
  const std::string& file_of(uint32_t depth) const;

 private:
  qcow2::Result<void> add(const qcow2::Extent& extent, const OnEntry& on_entry);
  qcow2::Result<void> put(const MapEntry& entry, const OnEntry& on_entry);
  qcow2::Result<bool> hollow(uint32_t depth);

  const AnySource& source_;
  std::vector<std::optional<bool>> hollow_;  // by depth: whether its file may have such holes
  std::optional<MapEntry> pending_;
};

}  // namespace copy
