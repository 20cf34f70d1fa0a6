// Small images of every writable kind, and the bytes of their disks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/interop/image_maker.h"
#include "tests/support/random.h"
#include "tests/support/temp_directory.h"

namespace vc::test {

using Bytes = std::vector<std::byte>;

struct WrittenImage {
  interop::Shape shape;
  std::string path;
  std::string kind;   // the properties in one line, for messages
  uint64_t size = 0;  // of the disk, bytes
  bool backed = false;
  // QEMU supports snapshots of it: they need wide refcounts, and no external data file.
  bool can_have_snapshots = false;
  bool can_compress = false;
  Bytes contents;  // of the disk

  uint64_t cluster_size() const { return shape.cluster_size(); }
};

// Makes a random image in `folder` that already has data: plain, compressed, or in a backing file.
WrittenImage make_written_image(support::Random& random, const support::TempDirectory& folder);

// Returns the disk of an image, or of a snapshot, as QEMU reads it.
Bytes read_by_qemu(const support::TempDirectory& folder, const std::string& image,
                   const std::string& snapshot = "");

}  // namespace vc::test
