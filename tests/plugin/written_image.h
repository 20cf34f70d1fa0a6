// Small images of every kind that can be written, and the bytes of their disks.
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
  std::string kind;   // all of this in a line, for messages
  uint64_t size = 0;  // of the disk, bytes
  bool backed = false;
  // What QEMU can do to it: both of them want room in the refcounts, and a data file of one's own
  // forbids both.
  bool can_have_snapshots = false;
  bool can_compress = false;
  Bytes contents;  // of the disk

  uint64_t cluster_size() const { return shape.cluster_size(); }
};

// A random one in `folder`, with data in it already: plain, compressed, or behind it.
WrittenImage make_written_image(support::Random& random, const support::TempDirectory& folder);

// The disk of an image, or one of its snapshots, as QEMU reads it.
Bytes read_by_qemu(const support::TempDirectory& folder, const std::string& image,
                   const std::string& snapshot = "");

}  // namespace vc::test
