// Random QCOW2 images of every kind that qemu-img and qemu-io can make.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/random.h"

namespace vc::interop {

// A disk that an image holds, and its bytes as QEMU reads them.
struct MadeDisk {
  std::string snapshot;  // name of the internal snapshot; empty: current disk
  std::string raw;       // path of a raw file with its bytes
  // Path of an image whose current disk this is: the image itself, or a copy with the snapshot
  // applied to it.  qemu-img map and qemu-nbd can show a snapshot only in this way.
  std::string image;
};

struct MadeImage {
  std::string path;
  std::vector<MadeDisk> disks;  // the current disk first
  uint64_t cluster_size = 0;    // of the top image, bytes
  uint64_t size = 0;            // of the current disk, bytes
  bool sound = true;            // false: has wrong refcounts, or is dirty
  bool huge = false;            // far larger than its data: must not be read completely
  std::string recipe;           // the commands that made it, one per line
};

// Makes an image and its backing files in `folder`, which must be empty. Throws std::runtime_error
// if one of QEMU's tools fails unexpectedly.
MadeImage make_image(support::Random& random, const std::string& folder);

// Properties of an image of the chain. They are random, but tests can set them.
struct Shape {
  std::string compat = "1.1";
  unsigned cluster_bits = 16;
  unsigned refcount_bits = 16;
  bool extended_l2 = false;
  bool lazy_refcounts = false;
  bool zstd = false;
  std::string preallocation = "off";
  enum class DataFile { kNone, kPlain, kRaw } data_file = DataFile::kNone;

  bool v3() const { return compat != "0.10"; }
  uint64_t cluster_size() const { return uint64_t{1} << cluster_bits; }
  // Returns the argument of qemu-img create -o, without the data file.
  std::string options() const;
};

}  // namespace vc::interop
